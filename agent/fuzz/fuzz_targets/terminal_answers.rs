//! A whole conversation: whatever a terminal sends to someone who asks for its log, each wait ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::Pace;
use scc_agent::capture::attendance::command::Table;
use scc_agent::capture::attendance::session::{EVENT_QUEUE, Session};
use tokio::io::AsyncWriteExt;

fuzz_target!(|bytes: &[u8]| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (events, _queue) = tokio::sync::mpsc::channel(EVENT_QUEUE);
        let mut session = Session::new(ours, Pace::default(), events);
        if theirs
            .write_all(bytes.get(..1 << 20).unwrap_or(bytes))
            .await
            .is_ok()
        {
            let _ = session.table(Table::Attendance).await;
        }
    });
});

//! `scc-agent run`.

use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::SystemClock;
use scc_common::config::EXIT_CONFIG;
use tracing_subscriber::EnvFilter;

use super::refuse;
use crate::config::{self, Config, State};
use crate::runtime;

/// Runs the agent. Exit status 2: the configuration is wrong and nothing was started; 1: it could
/// not start or go on; 0: it was told to stop.
pub fn main(file: &Path) -> ExitCode {
    let config = match Config::load_to_run(file) {
        Ok(config) => config,
        Err(error) => return refuse(&error, EXIT_CONFIG),
    };
    let filter = EnvFilter::try_from_env("SCC_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, 1),
    };
    let ended = runtime.block_on(runtime::run(config, SystemClock::shared()));
    // a blocked name lookup must not hold up the stop
    runtime.shutdown_timeout(std::time::Duration::from_millis(300));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, 1),
    }
}

/// Runs something that needs only the state directory and the limits; the secrets that the configuration
/// names need not be readable.
pub(super) fn with_state(file: &Path, f: impl FnOnce(&State) -> Result<(), String>) -> ExitCode {
    match config::state(file) {
        Err(error) => refuse(&error, EXIT_CONFIG),
        Ok(state) => match f(&state) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error, 1),
        },
    }
}

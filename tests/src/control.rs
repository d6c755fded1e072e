//! Control lines on the standard input of a stand-in.

use tokio::sync::mpsc;

/// The lines as they come; ends when the input closes. A thread of its own reads them, for a program
/// must be able to end while nobody types.
#[must_use]
pub fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

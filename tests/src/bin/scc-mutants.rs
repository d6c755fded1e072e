//! Shows that the tests of the four promises can fail: `make faults-selftest`.

use std::path::Path;
use std::process::ExitCode;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it reports to a person"
)]
fn main() -> ExitCode {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands in the workspace");
    match scc_tests::mutants::run(tree, &tree.join("target/mutants")) {
        Ok(noticed) => {
            println!("faults-selftest mutants={noticed} noticed={noticed}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

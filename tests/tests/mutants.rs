//! The list of mutants is of this code: what each of them changes is there. That they are noticed is
//! shown by `make faults-selftest`, which builds them.

use std::path::Path;

use scc_tests::mutants::Mutants;

#[test]
fn each_mutant_still_finds_its_place_and_its_test() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mutants = Mutants::read(tree).unwrap().mutant;
    assert!(mutants.len() >= 6);
    for mutant in &mutants {
        for edit in &mutant.edit {
            let changed = edit.applied(tree).unwrap();
            assert!(!changed.is_empty(), "{}", mutant.name);
        }
        let test = &mutant.test;
        let name = test.name.rsplit("::").next().unwrap();
        let folder = tree.join(test.package.trim_start_matches("scc-"));
        let file = match test.target.as_str() {
            "lib" => {
                let path: Vec<&str> = test.name.split("::").collect();
                let module = path[..path.len() - 1].join("/");
                folder.join("src").join(module).with_extension("rs")
            }
            target => folder.join("tests").join(target).with_extension("rs"),
        };
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains(&format!("fn {name}(")),
            "{}: no test {name} in {}",
            mutant.name,
            file.display()
        );
    }
}

//! Which layer may depend on what, as ARCHITECTURE.md says; that files stay short; and that the glossary is kept.
//!
//! The rules read the sources with a parser. `planted.rs` shows that each of them can fail.

mod planted;
mod rules;
mod source;
mod words;

use source::{Sources, texts};

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn layers_respect_dependency_rules() {
    assert_none(&rules::layers(&Sources::read()));
}

#[test]
fn domain_has_no_effects() {
    assert_none(&rules::effects_in_domain(&Sources::read()));
}

#[test]
fn only_bootstrap_names_concrete_adapters() {
    assert_none(&rules::concrete_adapters(&Sources::read()));
}

#[test]
fn sibling_modules_have_no_cycles() {
    assert_none(&rules::cycles(&Sources::read()));
}

#[test]
fn files_are_at_most_500_lines_long() {
    assert_none(&rules::long_files(&[texts("src"), texts("tests")].concat()));
}

#[test]
fn glossary_words_are_absent() {
    assert_none(&words::found(&[texts("src"), texts("tests")].concat()));
}

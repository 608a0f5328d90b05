//! The sources as the rules see them: for each module, the paths that its code refers to, without its unit tests.
//!
//! `use` trees are expanded, `self`, `super`, `crate`, aliases and submodules are resolved, and paths in expressions, types,
//! attributes and macros are read too, so that `use crate::{adapters::{..}}` and an inline `crate::adapters::x::Y` count alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use syn::{
    Attribute, File, ImplItem, Item, ItemUse, Macro, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module of the crate: `["adapters", "http", "queue"]`; the root is empty.
pub type ModulePath = Vec<String>;

/// One file, parsed.
#[derive(Debug)]
pub struct Source {
    /// Below the repository, as `src/domain/run.rs`.
    pub file: String,
    pub module: ModulePath,
    /// Resolved paths: those into this crate begin with `crate`, others with the name of a crate.
    pub paths: BTreeSet<Vec<String>>,
    /// Names that the module re-exports, and what they are.
    reexports: BTreeMap<String, Vec<String>>,
    /// Modules that exist only for tests.
    test_modules: BTreeSet<ModulePath>,
    pub has_async: bool,
}

/// The module of a file.
fn module_of(file: &str) -> ModulePath {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: ModulePath = inner.split('/').map(str::to_owned).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// Whether an item is compiled only for tests: `#[cfg(test)]`, `#[cfg(all(test, ..))]` or `#[test]`.
fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        if attribute.path().is_ident("test") {
            return true;
        }
        let Meta::List(list) = &attribute.meta else {
            return false;
        };
        let condition = list.tokens.to_string().replace(' ', "");
        attribute.path().is_ident("cfg")
            && (condition == "test"
                || condition.starts_with("all(")
                    && condition.contains("test")
                    && !condition.contains("not(test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Collects the paths of a file, still as they are written.
#[derive(Default)]
struct Collector {
    /// The inline modules that are being visited.
    inline: ModulePath,
    uses: Vec<(ModulePath, Vec<String>, String, bool)>,
    written: Vec<(ModulePath, Vec<String>)>,
    submodules: BTreeSet<String>,
    test_modules: Vec<String>,
    has_async: bool,
}

impl Collector {
    fn expand(&mut self, tree: &UseTree, prefix: &[String], is_public: bool) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => {
                self.expand(&path.tree, &with(path.ident.to_string()), is_public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.expand(tree, prefix, is_public);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                let alias = prefix.last().cloned().unwrap_or_default();
                self.add_use(prefix.to_vec(), alias, is_public);
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.add_use(with(name.clone()), name, is_public);
            }
            UseTree::Rename(rename) => {
                let path = with(rename.ident.to_string());
                self.add_use(path, rename.rename.to_string(), is_public);
            }
            UseTree::Glob(_) => self.add_use(prefix.to_vec(), "*".to_owned(), is_public),
        }
    }

    fn add_use(&mut self, path: Vec<String>, alias: String, is_public: bool) {
        self.uses
            .push((self.inline.clone(), path, alias, is_public));
    }

    /// Reads `a::b::c` out of tokens that only a macro understands.
    fn scan(&mut self, tokens: &str) {
        // Texts are not code; what they interpolate is at most a name.
        let tokens = tokens.replace("'\"'", " ").replace("\\\"", "");
        let code: String = tokens.split('"').step_by(2).collect();
        for word in code
            .replace(" :: ", "::")
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        {
            let segments: Vec<String> = word
                .split("::")
                .filter(|segment| !segment.is_empty())
                .map(str::to_owned)
                .collect();
            if segments.len() > 1 {
                self.written.push((self.inline.clone(), segments));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test_only(attributes(item)) {
            if let Item::Mod(module) = item {
                self.test_modules.push(module.ident.to_string());
            }
            return;
        }
        if let Item::Mod(module) = item {
            self.submodules.insert(module.ident.to_string());
            self.inline.push(module.ident.to_string());
            visit::visit_item(self, item);
            self.inline.pop();
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let test_only = matches!(item, ImplItem::Fn(method) if is_test_only(&method.attrs));
        if !test_only {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        let mut prefix = vec![];
        if item.leading_colon.is_some() {
            prefix.push("::".to_owned());
        }
        self.expand(&item.tree, &prefix, is_public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 {
            if path.leading_colon.is_some() {
                segments.insert(0, "::".to_owned());
            }
            self.written.push((self.inline.clone(), segments));
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            // `cfg_attr(any(test, ..), mockall::automock)` is for tests alone.
            let for_tests =
                attribute.path().is_ident("cfg_attr") && list.tokens.to_string().contains("test");
            if !for_tests {
                self.scan(&list.tokens.to_string());
            }
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, mac: &'ast Macro) {
        self.scan(&mac.tokens.to_string());
        visit::visit_macro(self, mac);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.has_async |= signature.asyncness.is_some();
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.has_async = true;
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.has_async = true;
        visit::visit_expr_await(self, expression);
    }
}

/// First segments that are not the name of a crate or module.
const NO_CRATES: &[&str] = &[
    "Self", "bool", "char", "str", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8",
    "u16", "u32", "u64", "u128", "usize", "clippy",
];

/// A path relative to a module as one from the root of a crate; `None` for a name that only this file has.
fn resolve(
    module: &[String],
    submodules: &BTreeSet<String>,
    aliases: &BTreeMap<String, Vec<String>>,
    path: &[String],
) -> Option<Vec<String>> {
    let in_crate =
        |module: &[String], rest: &[String]| [&["crate".to_owned()], module, rest].concat();
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" | "janitor_runner" => Some(in_crate(&[], rest)),
        "self" => Some(in_crate(module, rest)),
        "super" => {
            let (_, parent) = module.split_last()?;
            match rest.first().map(String::as_str) {
                Some("super") => resolve(parent, submodules, aliases, rest),
                _ => Some(in_crate(parent, rest)),
            }
        }
        "::" => Some(rest.to_vec()),
        name if NO_CRATES.contains(&name) => None,
        name if submodules.contains(name) => Some(in_crate(module, path)),
        name => match aliases.get(name) {
            Some(target) => Some([target.as_slice(), rest].concat()),
            // A type of this file; crates are in lower case.
            None if name.starts_with(char::is_uppercase) => None,
            None => Some(path.to_vec()),
        },
    }
}

impl Source {
    /// Parses one file.
    pub fn parse(file: &str, text: &str) -> Self {
        let parsed: File = syn::parse_file(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let module = module_of(file);
        let mut collector = Collector::default();
        collector.visit_file(&parsed);
        let mut source = Self {
            file: file.to_owned(),
            paths: BTreeSet::new(),
            reexports: BTreeMap::new(),
            test_modules: BTreeSet::new(),
            has_async: collector.has_async,
            module,
        };
        for name in &collector.test_modules {
            source
                .test_modules
                .insert([source.module.as_slice(), std::slice::from_ref(name)].concat());
        }
        source.resolve_all(&collector);
        source
    }

    fn resolve_all(&mut self, collector: &Collector) {
        let mut aliases = BTreeMap::new();
        for (inline, path, alias, is_public) in &collector.uses {
            let module = [self.module.as_slice(), inline].concat();
            let Some(path) = resolve(&module, &collector.submodules, &BTreeMap::new(), path) else {
                continue;
            };
            aliases.insert(alias.clone(), path.clone());
            if *is_public && inline.is_empty() {
                self.reexports.insert(alias.clone(), path);
            } else {
                self.paths.insert(path);
            }
        }
        for (inline, path) in &collector.written {
            let module = [self.module.as_slice(), inline].concat();
            self.paths
                .extend(resolve(&module, &collector.submodules, &aliases, path));
        }
    }
}

/// All sources of the crate, with re-exports resolved.
#[derive(Debug)]
pub struct Sources(pub Vec<Source>);

fn files_below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file below a folder of the repository, as (name, text), by name.
pub fn texts(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    files_below(&root.join(folder), &mut files);
    files.sort();
    assert!(!files.is_empty(), "{folder} has no sources");
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    files
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

impl Sources {
    /// Those of `src`.
    pub fn read() -> Self {
        let texts = texts("src");
        Self::parse(
            texts
                .iter()
                .map(|(file, text)| (file.as_str(), text.as_str())),
        )
    }

    /// Those given as (file, text).
    pub fn parse<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sources: Vec<Source> = texts
            .into_iter()
            .map(|(file, text)| Source::parse(file, text))
            .collect();
        let test_only: BTreeSet<ModulePath> = sources
            .iter()
            .flat_map(|source| source.test_modules.clone())
            .collect();
        sources.retain(|source| {
            !test_only
                .iter()
                .any(|module| source.module.starts_with(module))
        });
        let reexports: BTreeMap<Vec<String>, Vec<String>> = sources
            .iter()
            .flat_map(|source| {
                source.reexports.iter().map(|(name, target)| {
                    let crate_path = ["crate".to_owned()].into_iter();
                    let module = source.module.iter().cloned();
                    let exported = crate_path.chain(module).chain([name.clone()]).collect();
                    (exported, target.clone())
                })
            })
            .collect();
        for source in &mut sources {
            let paths = std::mem::take(&mut source.paths);
            source.paths = paths
                .into_iter()
                .map(|path| follow(&reexports, path))
                .collect();
        }
        Self(sources)
    }

    /// The module that a path leads into: the longest one that has a file.
    pub fn module_of_path(&self, path: &[String]) -> Option<ModulePath> {
        let (first, inner) = path.split_first()?;
        if first != "crate" {
            return None;
        }
        (0..=inner.len()).rev().find_map(|length| {
            let module = &inner[..length];
            let known = self.0.iter().any(|source| source.module == module);
            (known && !module.is_empty()).then(|| module.to_vec())
        })
    }
}

/// Replaces re-exported names by what they are.
fn follow(reexports: &BTreeMap<Vec<String>, Vec<String>>, mut path: Vec<String>) -> Vec<String> {
    // A chain of re-exports is short; the bound only protects from a cycle of names.
    for _ in 0..8 {
        let found = (2..=path.len())
            .rev()
            .find_map(|length| Some((length, reexports.get(&path[..length])?)));
        let Some((length, target)) = found else {
            break;
        };
        path = [target.as_slice(), &path[length..]].concat();
    }
    path
}

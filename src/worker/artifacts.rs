//! The files that a run uploads: its logs, the patch, and what was put into its output folder.

use super::{folders::Folders, log, regular_file};
use crate::domain::log_name::REPORT;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::Write,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The maximum number of files in one upload.
const MAX_FILES: usize = 9_000;
/// The maximum length of a name that is made of another, in bytes.
const MAX_NAME_LENGTH: usize = 200;
/// The longest ending of a name that is kept when the name is cut.
const MAX_EXTENSION_LENGTH: usize = 20;
/// The number of files that are named one by one.
const MAX_NAMED: usize = 20;

/// A file to upload.
#[derive(Debug, Clone)]
pub(super) struct UploadFile {
    /// The name that it is uploaded under.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// The files of a run.
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// The files to upload; the log of the worker is the first.
    pub(super) files: Vec<UploadFile>,
    /// What cannot be uploaded, each with its reason.
    pub(super) left_out: Vec<String>,
    /// The files that have another name in the upload: the name and what it was made of.
    pub(super) renamed: Vec<String>,
    names: BTreeSet<String>,
}

/// Returns a name that every store accepts, in which bytes that some do not accept are escaped.
fn escaped(name: &OsStr) -> String {
    let mut escaped = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || "\\/\"".contains(c) {
                let mut buffer = [0; 4];
                escape_bytes(&mut escaped, c.encode_utf8(&mut buffer).as_bytes());
            } else {
                escaped.push(c);
            }
        }
        escape_bytes(&mut escaped, chunk.invalid());
    }
    escaped
}

fn escape_bytes(to: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(to, "%{byte:02X}");
    }
}

/// Returns the name without its middle, if it is too long; the ending is kept, since it says what a
/// file is.
fn shortened(name: &str, max_length: usize) -> String {
    if name.len() <= max_length {
        return name.to_owned();
    }
    let extension = name
        .rfind('.')
        .and_then(|dot| name.get(dot..))
        .filter(|extension| extension.len() <= MAX_EXTENSION_LENGTH)
        .unwrap_or_default();
    let end = name.floor_char_boundary(max_length - extension.len());
    format!("{}{extension}", name.get(..end).unwrap_or_default())
}

/// Lists things for people, not all of them if they are many.
pub(super) fn listed(things: &[String]) -> String {
    let mut text = things
        .iter()
        .take(MAX_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if things.len() > MAX_NAMED {
        let _ = write!(text, " and {} more", things.len() - MAX_NAMED);
    }
    text
}

impl Collection {
    /// Returns a name for a file that no other file of the upload has.
    fn free_name(&self, name: &OsStr) -> String {
        let escaped = escaped(name);
        // The longest name that a file system stores has 255 bytes, and stores of logs add `.gz`.
        let mut free = if escaped.len() > 252 {
            shortened(&escaped, MAX_NAME_LENGTH)
        } else {
            escaped
        };
        let mut number = 1;
        while free == REPORT || self.names.contains(&free) {
            let prefix = if number == 1 {
                "artifact-".to_owned()
            } else {
                format!("artifact-{number}-")
            };
            free = prefix + &shortened(free.trim_start_matches("artifact-"), MAX_NAME_LENGTH);
            number += 1;
        }
        free
    }

    fn add(&mut self, path: PathBuf, name: &OsStr) {
        let shown = escaped(name);
        if self.files.len() >= MAX_FILES {
            self.left_out
                .push(format!("{shown} (there are too many files)"));
            return;
        }
        let size = regular_file::open(&path).and_then(|file| Ok(file.metadata()?.len()));
        match size {
            Ok(size) => {
                let free = self.free_name(name);
                if free.as_bytes() != name.as_bytes() {
                    self.renamed.push(format!("{free} (was {shown})"));
                }
                self.names.insert(free.clone());
                self.files.push(UploadFile {
                    name: free,
                    path,
                    size,
                });
            }
            Err(error) => self.left_out.push(format!("{shown} ({error})")),
        }
    }

    fn add_folder(&mut self, folder: &Path, except: Option<&str>) {
        let listed = fs::symlink_metadata(folder).and_then(|metadata| {
            if metadata.is_dir() {
                fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()
            } else {
                Err(io::Error::other("it is not a folder any more"))
            }
        });
        match listed {
            Ok(mut entries) => {
                // The order decides which of two files keeps its name.
                entries.sort_by_key(fs::DirEntry::file_name);
                for entry in entries {
                    let name = entry.file_name();
                    if except.is_none_or(|except| name != except) {
                        self.add(entry.path(), &name);
                    }
                }
            }
            // A codemod may remove a folder that it does not need.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let name = folder.file_name().unwrap_or_default();
                self.left_out.push(format!("{} ({error})", escaped(name)));
            }
        }
    }

    /// Returns the collection of one file, which is a log.
    pub(super) fn log_only(path: PathBuf) -> Self {
        let mut collection = Self::default();
        collection.add(path, OsStr::new(log::NAME));
        collection
    }

    /// Collects the files of a run.
    pub(super) fn of_run(folders: &Folders, campaign: &str) -> Self {
        let mut collection = Self::log_only(folders.logs.join(log::NAME));
        if folders.patch.exists() {
            let name = format!("{campaign}.patch");
            collection.add(folders.patch.clone(), OsStr::new(&name));
            collection.renamed.clear();
        }
        collection.add_folder(&folders.logs, Some(log::NAME));
        collection.add_folder(&folders.output, None);
        collection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log_name::validate_file_name;
    use proptest::prelude::*;

    #[test]
    fn every_name_is_made_acceptable_and_different() {
        let mut collection = Collection::default();
        let long = "é".repeat(126) + ".x";
        for name in [
            &b"a"[..],
            b"a",
            b"artifact-a",
            b"a",
            b"result.json",
            b"\xff\xfe",
            b"a\nb\\",
            long.as_bytes(),
            long.as_bytes(),
        ] {
            let free = collection.free_name(OsStr::from_bytes(name));
            assert!(validate_file_name(&free).is_ok(), "{free}");
            assert!(collection.names.insert(free.clone()), "{free}");
        }
        assert!(collection.names.contains("artifact-result.json"));
        assert!(collection.names.contains("%FF%FE"));
        assert!(collection.names.contains("a%0Ab%5C"));
    }

    proptest! {
        #[test]
        fn any_bytes_become_an_acceptable_name(
            name in proptest::collection::vec(1_u8..=255, 1..=255)
        ) {
            prop_assume!(!name.contains(&b'/') && name != b"." && name != b"..");
            let free = Collection::default().free_name(OsStr::from_bytes(&name));
            prop_assert!(validate_file_name(&free).is_ok(), "{:?}", free);
        }
    }
}

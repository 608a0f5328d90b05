//! Tables of which a file needs to name only the keys that it changes.

use schemars::Schema;

/// Makes all keys of a table optional in the schema: lower layers have those that a file lacks.
pub(super) fn layered(schema: &mut Schema) {
    schema.remove("required");
}

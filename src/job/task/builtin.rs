//! The task `builtin`: the name of a registered Rust function, and the arguments of its call. Which builtins there are,
//! and which arguments they take, admission asks the registry of the daemon.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TaskType;
use crate::invalid::{self, Invalid};
use crate::job::Json;

/// A registered Rust function, and the arguments of its call.
#[derive(Debug, PartialEq, Serialize)]
pub struct Builtin {
    pub name: String,
    /// An object.
    pub args: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuiltinInput {
    name: String,
    #[serde(default)]
    args: Map<String, Value>,
}

impl Builtin {
    /// Reads the JSON form, without its type.
    pub(super) fn parse(keys: Map<String, Value>) -> Result<Self, Invalid> {
        let input: BuiltinInput = invalid::read(Value::Object(keys))?;
        Ok(Self { name: input.name, args: input.args.into() })
    }
}

impl TaskType for Builtin {
    fn describe(&self) -> String {
        self.name.clone()
    }
}

//! Push rules: which users an event notifies, and how (spec: "Push Rules"), evaluated for all local
//! members of a room at once.

mod base;
mod evaluate;
mod glob;
mod rule;

pub use base::{APPEND_CONTENT, APPEND_OVERRIDE, APPEND_UNDERRIDE, PREPEND_OVERRIDE, base_rules};
pub use evaluate::{Evaluator, Recipient, RoomFacts, flatten};
pub use glob::{glob, glob_word};
pub use rule::{Action, Comparison, Condition, Outcome, PushRule, Ruleset, StoredRule};

//! Transactions of other servers that are being worked on: one that comes again meanwhile waits for the answer.

use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;
use types::ServerName;

/// Answers kept at most; older ones are in `received_transactions`.
const MOST: usize = 500;

/// See the module.
#[derive(Default)]
pub struct Inbound(Mutex<VecDeque<(String, Arc<OnceCell<Value>>)>>);

impl Inbound {
    /// Where the answer to a transaction appears.
    pub fn of(&self, origin: &ServerName, txn_id: &str) -> Arc<OnceCell<Value>> {
        let key = format!("{origin}/{txn_id}");
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, cell)) = kept.iter().find(|(k, _)| *k == key) {
            return cell.clone();
        }
        if kept.len() >= MOST {
            kept.pop_front();
        }
        let cell = Arc::new(OnceCell::new());
        kept.push_back((key, cell.clone()));
        cell
    }
}

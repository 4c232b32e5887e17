//! Push rules as users set them: tables `push_rules`, `push_rules_enable` and `push_rules_stream`.
//! Only the writer of the push_rules stream may change them.

use crate::{Row, Store, Stream, Tx, transaction};
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::OnceCell;
use types::{Error, Result};

/// Most rules of a user.
const MAX_RULES: i64 = 10_000;

/// Class of the row that holds changed actions of one of the server's own rules.
const DEFAULT_CLASS: i16 = -1;

/// Ids of rows count upwards in the one process that writes them.
#[derive(Default)]
pub(crate) struct RuleIds {
    rules: OnceCell<AtomicI64>,
    enable: OnceCell<AtomicI64>,
}

/// A rule to be written.
#[derive(Clone, Debug)]
pub struct NewRule {
    /// `global/<kind>/<rule id>`.
    pub id: String,
    pub class: i16,
    /// JSON.
    pub conditions: String,
    /// JSON.
    pub actions: String,
}

/// Where a rule goes among those of its class.
#[derive(Clone, Debug)]
pub enum Place {
    /// Before all others; where it is, if it exists.
    First,
    /// Just before (full id).
    Before(String),
    /// Just after (full id).
    After(String),
}

struct Logged<'a> {
    op: &'a str,
    rule: &'a str,
    body: Option<(i16, i32, &'a str)>,
    actions: Option<&'a str>,
}

impl Store {
    async fn next_rule_id(&self, enable: bool) -> Result<i64> {
        let ids = &self.accounts.rule_ids;
        let (cell, table) = if enable { (&ids.enable, "push_rules_enable") } else { (&ids.rules, "push_rules") };
        let load = async {
            let row = self.db.query_opt(&format!("SELECT COALESCE(MAX(id), 1) FROM {table}"), &[]).await?;
            Ok::<_, Error>(AtomicI64::new(row.map_or(1, |r| r.get(0))))
        };
        Ok(cell.get_or_try_init(|| load).await?.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds or replaces a rule. 400 if there is no rule to place it by, or one of another kind.
    pub async fn add_push_rule(&self, user_id: &str, rule: &NewRule, place: &Place) -> Result<()> {
        let (row_id, enable_id) = (self.next_rule_id(false).await?, self.next_rule_id(true).await?);
        transaction!(self, "add_push_rule", |tx| {
            let sql = "SELECT id FROM push_rules WHERE user_name = $1 AND priority_class = $2 FOR UPDATE";
            tx.query(sql, &[&user_id, &rule.class]).await?;
            let priority = match place {
                Place::First => highest(tx, user_id, rule.class).await?,
                Place::Before(other) => make_room(tx, user_id, rule.class, other, 1).await?,
                Place::After(other) => make_room(tx, user_id, rule.class, other, 0).await?,
            };
            upsert(tx, user_id, rule, priority, row_id).await?;
            enable_new(tx, user_id, &rule.id, enable_id).await?;
            let body = Some((rule.class, priority, rule.conditions.as_str()));
            let logged = Logged { op: "ADD", rule: &rule.id, body, actions: Some(&rule.actions) };
            self.log_push_rule(tx, user_id, &logged).await
        })
    }

    /// Deletes a rule. False if there is none.
    pub async fn delete_push_rule(&self, user_id: &str, rule: &str) -> Result<bool> {
        transaction!(self, "delete_push_rule", |tx| {
            let sql = "DELETE FROM push_rules_enable WHERE user_name = $1 AND rule_id = $2";
            tx.run(sql, &[&user_id, &rule]).await?;
            let sql = "DELETE FROM push_rules WHERE user_name = $1 AND rule_id = $2";
            if tx.run(sql, &[&user_id, &rule]).await? == 0 {
                return Ok(false);
            }
            self.log_push_rule(tx, user_id, &Logged { op: "DELETE", rule, body: None, actions: None }).await?;
            Ok(true)
        })
    }

    /// Switches a rule on or off. False if it is neither the server's own (`default`) nor the user's.
    pub async fn enable_push_rule(&self, user_id: &str, rule: &str, on: bool, default: bool) -> Result<bool> {
        let enable_id = self.next_rule_id(true).await?;
        transaction!(self, "set_push_rule_enabled", |tx| {
            if !default && !exists(tx, user_id, rule).await? {
                return Ok(false);
            }
            let sql = "INSERT INTO push_rules_enable (id, user_name, rule_id, enabled) VALUES ($1, $2, $3, $4)
                       ON CONFLICT (user_name, rule_id) DO UPDATE SET enabled = EXCLUDED.enabled";
            tx.run(sql, &[&enable_id, &user_id, &rule, &i16::from(on)]).await?;
            let op = if on { "ENABLE" } else { "DISABLE" };
            self.log_push_rule(tx, user_id, &Logged { op, rule, body: None, actions: None }).await?;
            Ok(true)
        })
    }

    /// Sets the actions (JSON) of a rule. False if it is neither the server's own (`default`) nor the user's.
    pub async fn set_push_rule_actions(&self, user_id: &str, rule: &str, actions: &str, default: bool) -> Result<bool> {
        let (row_id, enable_id) = (self.next_rule_id(false).await?, self.next_rule_id(true).await?);
        transaction!(self, "set_push_rule_actions", |tx| {
            if default {
                let new = NewRule {
                    id: rule.to_owned(),
                    class: DEFAULT_CLASS,
                    conditions: "[]".to_owned(),
                    actions: actions.to_owned(),
                };
                upsert(tx, user_id, &new, 1, row_id).await?;
                enable_new(tx, user_id, rule, enable_id).await?;
            } else {
                let sql = "UPDATE push_rules SET actions = $3 WHERE user_name = $1 AND rule_id = $2";
                if tx.run(sql, &[&user_id, &rule, &actions]).await? == 0 {
                    return Ok(false);
                }
            }
            let logged = Logged { op: "ACTIONS", rule, body: None, actions: Some(actions) };
            self.log_push_rule(tx, user_id, &logged).await?;
            Ok(true)
        })
    }

    async fn log_push_rule(&self, tx: &mut Tx, user_id: &str, l: &Logged<'_>) -> Result<()> {
        let id = tx.next(&self.streams, Stream::PushRules).await?;
        let at = self.streams.current(Stream::Events);
        let (class, priority, conditions) = match l.body {
            Some((c, p, conditions)) => (Some(c), Some(p), Some(conditions)),
            None => (None, None, None),
        };
        tx.run(
            "INSERT INTO push_rules_stream (stream_id, event_stream_ordering, user_id, rule_id, op, priority_class,
                 priority, conditions, actions, instance_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[&id, &at, &user_id, &l.rule, &l.op, &class, &priority, &conditions, &l.actions, &self.instance()],
        )
        .await?;
        tx.announce(Stream::PushRules, id, Row::PushRules { user_id: user_id.to_owned() });
        Ok(())
    }
}

async fn exists(tx: &Tx, user_id: &str, rule: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM push_rules WHERE user_name = $1 AND rule_id = $2 FOR KEY SHARE";
    Ok(tx.query_opt(sql, &[&user_id, &rule]).await?.is_some())
}

async fn highest(tx: &Tx, user_id: &str, class: i16) -> Result<i32> {
    let sql = "SELECT COALESCE(MAX(priority) + 1, 0) FROM push_rules WHERE user_name = $1 AND priority_class = $2";
    Ok(tx.query_opt(sql, &[&user_id, &class]).await?.map_or(0, |r| r.get(0)))
}

/// Moves the rules above up by one and returns the priority that became free.
async fn make_room(tx: &Tx, user_id: &str, class: i16, other: &str, above: i32) -> Result<i32> {
    let sql = "SELECT priority, priority_class FROM push_rules WHERE user_name = $1 AND rule_id = $2 FOR UPDATE";
    let row = tx.query_opt(sql, &[&user_id, &other]).await?;
    let row = row.ok_or_else(|| Error::bad_request(format!("before/after rule not found: {other}")))?;
    if row.get::<_, i16>(1) != class {
        return Err(Error::bad_request("Given priority class does not match class of relative rule"));
    }
    let priority = row.get::<_, i32>(0) + above;
    let sql = "UPDATE push_rules SET priority = priority + 1
               WHERE user_name = $1 AND priority_class = $2 AND priority >= $3";
    tx.run(sql, &[&user_id, &class, &priority]).await?;
    Ok(priority)
}

async fn upsert(tx: &Tx, user_id: &str, rule: &NewRule, priority: i32, row_id: i64) -> Result<()> {
    let sql = "UPDATE push_rules SET priority_class = $3, priority = $4, conditions = $5, actions = $6
               WHERE user_name = $1 AND rule_id = $2";
    let values: crate::Params<'_> = &[&user_id, &rule.id, &rule.class, &priority, &rule.conditions, &rule.actions];
    if tx.run(sql, values).await? > 0 {
        return Ok(());
    }
    let count = tx.query_opt("SELECT COUNT(*) FROM push_rules WHERE user_name = $1", &[&user_id]).await?;
    if count.map_or(0, |r| r.get::<_, i64>(0)) >= MAX_RULES {
        return Err(Error::bad_request(format!("An account may have at most {MAX_RULES} push rules")));
    }
    let sql = "INSERT INTO push_rules (id, user_name, rule_id, priority_class, priority, conditions, actions)
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values: crate::Params<'_> =
        &[&row_id, &user_id, &rule.id, &rule.class, &priority, &rule.conditions, &rule.actions];
    tx.run(sql, values).await?;
    Ok(())
}

async fn enable_new(tx: &Tx, user_id: &str, rule: &str, id: i64) -> Result<()> {
    let sql = "INSERT INTO push_rules_enable (id, user_name, rule_id, enabled) VALUES ($1, $2, $3, 1)
               ON CONFLICT (user_name, rule_id) DO NOTHING";
    tx.run(sql, &[&id, &user_id, &rule]).await.map(|_| ())
}

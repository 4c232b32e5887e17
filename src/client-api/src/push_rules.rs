//! Push rules (spec: "Push Rules").

use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Value, json};
use store::push_rules::{NewRule, Place};
use types::{Error, Requester, Result};

const ALL: &str = "/_matrix/client/(api/v1|r0|v3|unstable)/pushrules/";
const ANY: &str = "/_matrix/client/(api/v1|r0|v3|unstable)/pushrules/{*path}";

/// Most bytes of a rule's id and of its conditions and actions.
const MAX_ID: usize = 300;
const MAX_BODY: usize = 1024;

pub fn routes() -> Vec<Route<App>> {
    let here = On::Writer("push_rules");
    vec![
        route("GET", "PushRuleRestServlet", ALL).user(get),
        route("GET", "PushRuleRestServlet", ANY).user(get),
        route("PUT", "PushRuleRestServlet", ANY).on(here).user(put),
        route("DELETE", "PushRuleRestServlet", ANY).on(here).user(delete),
    ]
}

fn unrecognized() -> Error {
    Error::client(400, "M_UNRECOGNIZED", "Unrecognized request")
}

fn wants_slash() -> Error {
    Error::client(400, "M_UNRECOGNIZED", "Unrecognised request: You probably wanted a trailing slash")
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let rules = app.sync.push_rules(&who.user_id).await?;
    let path: Vec<&str> = rq.arg_opt("path").unwrap_or_default().split('/').collect();
    select(&rules, &path)
}

/// The part of the rules a path asks for. An empty last part stands for all there is.
fn select(rules: &Value, path: &[&str]) -> Result<Value> {
    let (scope, path) = path.split_first().ok_or_else(wants_slash)?;
    if scope.is_empty() {
        return Ok(rules.clone());
    }
    let rules = rules.get(scope).ok_or_else(unrecognized)?;
    let (kind, path) = path.split_first().ok_or_else(wants_slash)?;
    if kind.is_empty() {
        return Ok(rules.clone());
    }
    let rules = rules.get(kind).and_then(Value::as_array).ok_or_else(unrecognized)?;
    let (id, path) = path.split_first().ok_or_else(wants_slash)?;
    if id.is_empty() {
        return Ok(json!(rules));
    }
    let rule = rules.iter().rev().find(|r| r["rule_id"] == *id).ok_or_else(|| Error::not_found("Not found"))?;
    match path.first() {
        None => Ok(rule.clone()),
        Some(attribute) => {
            let value = rule.get(attribute).ok_or_else(unrecognized)?;
            Ok(json!({ *attribute: value }))
        }
    }
}

/// What a path to one rule names.
struct Spec<'a> {
    kind: &'a str,
    id: &'a str,
    attribute: Option<&'a str>,
}

impl Spec<'_> {
    fn full_id(&self) -> String {
        format!("global/{}/{}", self.kind, self.id)
    }

    fn is_default(&self) -> bool {
        self.id.starts_with('.')
    }
}

fn spec(path: &str) -> Result<Spec<'_>> {
    let mut parts = path.split('/');
    if parts.next() != Some("global") {
        return Err(unrecognized());
    }
    let kind = parts.next().ok_or_else(unrecognized)?;
    let id = parts.next().filter(|id| !id.is_empty()).ok_or_else(unrecognized)?;
    Ok(Spec { kind, id, attribute: parts.next().filter(|a| !a.is_empty()) })
}

fn class(kind: &str) -> Result<i16> {
    Ok(match kind {
        "underride" => 1,
        "sender" => 2,
        "room" => 3,
        "content" => 4,
        "override" => 5,
        "postcontent" => 6,
        _ => return Err(Error::bad_request(format!("Unknown template: {kind}"))),
    })
}

fn actions(body: &Value) -> Result<&Vec<Value>> {
    let actions = body.get("actions").and_then(Value::as_array);
    let actions = actions.ok_or_else(|| Error::bad_request("actions: must be an array"))?;
    for action in actions {
        let known =
            matches!(action.as_str(), Some("notify" | "dont_notify" | "coalesce")) || action.get("set_tweak").is_some();
        if !known {
            return Err(Error::bad_request(format!("Unrecognised action {action}")));
        }
    }
    Ok(actions)
}

fn conditions(spec: &Spec<'_>, body: &Value) -> Result<Value> {
    let matches = |key: &str, pattern: &Value| json!([{"kind": "event_match", "key": key, "pattern": pattern}]);
    match spec.kind {
        "override" | "underride" => {
            let list = body.get("conditions").ok_or_else(|| Error::bad_request("Missing 'conditions'"))?;
            let kinds = list.as_array().is_some_and(|l| l.iter().all(|c| c.get("kind").is_some_and(Value::is_string)));
            if !kinds {
                return Err(Error::bad_request("conditions: must be an array of objects with 'kind'"));
            }
            Ok(list.clone())
        }
        "room" => Ok(matches("room_id", &json!(spec.id))),
        "sender" => Ok(matches("user_id", &json!(spec.id))),
        "content" => match body.get("pattern") {
            Some(pattern) if pattern.is_string() => Ok(matches("content.body", pattern)),
            Some(_) => Err(Error::bad_request("pattern: must be a string")),
            None => Err(Error::bad_request("Content rule missing 'pattern'")),
        },
        _ => Err(Error::invalid_param(format!("user-defined rules using `{}` are not accepted", spec.kind))),
    }
}

fn unknown_rule() -> Error {
    Error::not_found("Unknown rule")
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let spec = spec(rq.arg("path")?)?;
    let class = class(spec.kind)?;
    if spec.id.contains('\\') || spec.id.contains('/') {
        return Err(Error::bad_request("rule_id may not contain slashes"));
    }
    let body: Value = rq.json()?;
    if let Some(attribute) = spec.attribute {
        return set_attribute(&app, &who, &spec, attribute, &body).await;
    }
    if spec.is_default() {
        return Err(Error::bad_request("cannot add new rule_ids that start with '.'"));
    }
    let rule = NewRule {
        id: spec.full_id(),
        class,
        conditions: conditions(&spec, &body)?.to_string(),
        actions: serde_json::to_string(actions(&body)?)?,
    };
    if rule.id.len() > MAX_ID {
        return Err(Error::client(413, "M_UNKNOWN", format!("rule_id: longer than {MAX_ID} bytes")));
    }
    if rule.conditions.len() + rule.actions.len() > MAX_BODY {
        return Err(Error::client(413, "M_UNKNOWN", format!("Push rule: larger than {MAX_BODY} bytes")));
    }
    let near = |name: &str| rq.param(name).filter(|v| !v.is_empty()).map(|v| format!("global/{}/{v}", spec.kind));
    let place = match (near("before"), near("after")) {
        (Some(before), _) => Place::Before(before),
        (None, Some(after)) => Place::After(after),
        (None, None) => Place::First,
    };
    app.accounts.check_push_writer()?;
    app.store.add_push_rule(who.user_id.as_str(), &rule, &place).await
}

async fn set_attribute(app: &App, who: &Requester, spec: &Spec<'_>, attribute: &str, body: &Value) -> Result<()> {
    if !matches!(attribute, "enabled" | "actions") {
        return Err(unrecognized());
    }
    let (id, user) = (spec.full_id(), who.user_id.as_str());
    if spec.is_default() && !rules::push::base_rules().iter().any(|r| r.id == id) {
        return Err(unknown_rule());
    }
    app.accounts.check_push_writer()?;
    let found = if attribute == "enabled" {
        let on = body.get("enabled").unwrap_or(body).as_bool();
        let on = on.ok_or_else(|| Error::bad_request("Value for 'enabled' must be boolean"))?;
        app.store.enable_push_rule(user, &id, on, spec.is_default()).await?
    } else {
        let actions = serde_json::to_string(actions(body)?)?;
        app.store.set_push_rule_actions(user, &id, &actions, spec.is_default()).await?
    };
    if found { Ok(()) } else { Err(unknown_rule()) }
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    let spec = spec(rq.arg("path")?)?;
    app.accounts.check_push_writer()?;
    if app.store.delete_push_rule(who.user_id.as_str(), &spec.full_id()).await? {
        return Ok(());
    }
    Err(Error::not_found("Not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(path: &str) -> Result<Value> {
        let rules = json!({"global": {"room": [{"rule_id": "!a", "enabled": true}], "override": []}});
        select(&rules, &path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn paths_select_parts() {
        assert!(pick("").unwrap().get("global").is_some());
        assert!(pick("global/").unwrap().get("room").is_some());
        assert_eq!(pick("global/override/").unwrap(), json!([]));
        assert_eq!(pick("global/room/!a/enabled").unwrap(), json!({"enabled": true}));
        assert_eq!(pick("global").unwrap_err().errcode(), Some("M_UNRECOGNIZED"));
        assert_eq!(pick("global/room/!b").unwrap_err().errcode(), Some("M_NOT_FOUND"));
        assert_eq!(pick("device/").unwrap_err().errcode(), Some("M_UNRECOGNIZED"));
    }

    #[test]
    fn rooms_and_senders_are_their_conditions() {
        let spec = spec("global/room/!a").unwrap();
        let expected = json!([{"kind": "event_match", "key": "room_id", "pattern": "!a"}]);
        assert_eq!(conditions(&spec, &json!({})).unwrap(), expected);
        assert!(actions(&json!({"actions": ["notify", {"set_tweak": "sound"}]})).is_ok());
        assert!(actions(&json!({"actions": ["shout"]})).is_err());
    }
}

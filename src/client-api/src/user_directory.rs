//! Finding people (spec: "User Directory").

use app::App;
use http::{Route, Rq, route};
use serde_json::{Map, Value, json};
use store::user_directory::DirectorySearch;
use types::{Error, Requester, Result};

/// Words of a search that count.
const MAX_WORDS: usize = 10;

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("POST", "UserDirectorySearchRestServlet", "/_matrix/client/(r0|v3|unstable)/user_directory/search")
            .user(search),
    ]
}

/// Words of a search term as PostgreSQL's `tsquery` lexemes.
fn lexemes(term: &str) -> Vec<String> {
    let lower = term.to_lowercase();
    let words = lower.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '\'' | '=' | '/' | '+')));
    let words = words.map(|w| w.trim_matches(['-', '.', '\''])).filter(|w| !w.is_empty());
    words.take(MAX_WORDS).map(|w| format!("'{}'", w.replace('\'', "''").replace('\\', "\\\\"))).collect()
}

async fn search(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let users = &app.cx.config.directory.users;
    if !users.enabled {
        return Ok(json!({"limited": false, "results": []}));
    }
    app.accounts.limit_user(&app.accounts.limits().user_directory, &who).await?;
    let body: Map<String, Value> = rq.json()?;
    let limit = match body.get("limit") {
        None => 10,
        Some(n) => n.as_i64().ok_or_else(|| Error::invalid_param("limit: must be an integer"))?.clamp(0, 50),
    };
    let term = body.get("search_term").and_then(Value::as_str);
    let term = term.ok_or_else(|| Error::missing_param("search_term: must be a string"))?;
    let words = lexemes(term);
    if words.is_empty() {
        return Ok(json!({"limited": false, "results": []}));
    }
    let joined = |each: fn(&String) -> String| words.iter().map(each).collect::<Vec<_>>().join(" & ");
    let search = DirectorySearch {
        searcher: who.user_id.as_str(),
        full: joined(|w| format!("({w}:* | {w})")),
        exact: joined(String::clone),
        prefix: joined(|w| format!("{w}:*")),
        all_users: users.search_all_users,
        local_only: users.exclude_remote_users,
        prefer_local: users.prefer_local_users,
        show_locked: users.show_locked_users,
        limit: limit + 1,
    };
    let mut found = app.store.search_user_directory(&search).await?;
    let limited = found.len() as i64 > limit;
    found.truncate(limit as usize);
    Ok(json!({"limited": limited, "results": found}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(lexemes("Alice O'Hara @bob:hs1"), ["'alice'", "'o''hara'", "'bob'", "'hs1'"]);
        assert!(lexemes(" & | ! ").is_empty());
    }
}

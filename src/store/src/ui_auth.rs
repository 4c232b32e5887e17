//! Sessions of interactive authentication: tables `ui_auth_sessions*`.

use crate::{Store, transaction};
use serde_json::{Map, Value};
use types::{Error, Result};

/// What a session was begun for.
#[derive(Clone, Debug)]
pub struct UiAuthSession {
    /// The request's body without `auth`.
    pub client: Map<String, Value>,
    /// What the server remembers with it.
    pub server: Map<String, Value>,
    /// Path and query of the request.
    pub uri: String,
    pub method: String,
    /// For people.
    pub description: String,
}

fn object(text: &str) -> Result<Map<String, Value>> {
    Ok(serde_json::from_str(text)?)
}

impl Store {
    /// Begins a session under a fresh id.
    pub async fn create_ui_auth_session(&self, id: &str, session: &UiAuthSession, now_ms: i64) -> Result<()> {
        self.db
            .execute(
                "INSERT INTO ui_auth_sessions (session_id, creation_time, serverdict, clientdict, uri, method, description)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &id,
                    &now_ms,
                    &serde_json::to_string(&session.server)?,
                    &serde_json::to_string(&session.client)?,
                    &session.uri,
                    &session.method,
                    &session.description,
                ],
            )
            .await?;
        Ok(())
    }

    /// A session that was begun.
    pub async fn ui_auth_session(&self, id: &str) -> Result<Option<UiAuthSession>> {
        let sql = "SELECT clientdict, serverdict, uri, method, description FROM ui_auth_sessions WHERE session_id = $1";
        let Some(row) = self.db.query_opt(sql, &[&id]).await? else { return Ok(None) };
        Ok(Some(UiAuthSession {
            client: object(row.get(0))?,
            server: object(row.get(1))?,
            uri: row.get(2),
            method: row.get(3),
            description: row.get(4),
        }))
    }

    /// Replaces the remembered body of the request.
    pub async fn set_ui_auth_client(&self, id: &str, client: &Map<String, Value>) -> Result<()> {
        let sql = "UPDATE ui_auth_sessions SET clientdict = $2 WHERE session_id = $1";
        self.db.execute(sql, &[&id, &serde_json::to_string(client)?]).await?;
        Ok(())
    }

    /// Remembers something with a session. False if there is no such session.
    pub async fn set_ui_auth_data(&self, id: &str, key: &str, value: &Value) -> Result<bool> {
        transaction!(self, "set_ui_auth_session_data", |tx| {
            let sql = "SELECT serverdict FROM ui_auth_sessions WHERE session_id = $1 FOR UPDATE";
            let Some(row) = tx.query_opt(sql, &[&id]).await? else { return Ok(false) };
            let mut server = object(row.get(0))?;
            server.insert(key.to_owned(), value.clone());
            let sql = "UPDATE ui_auth_sessions SET serverdict = $2 WHERE session_id = $1";
            tx.run(sql, &[&id, &serde_json::to_string(&server)?]).await?;
            Ok(true)
        })
    }

    /// Notes who takes part in a session.
    pub async fn add_ui_auth_address(&self, id: &str, ip: &str, user_agent: &str) -> Result<()> {
        let sql = "INSERT INTO ui_auth_sessions_ips (session_id, ip, user_agent) VALUES ($1, $2, $3)
                   ON CONFLICT (session_id, ip, user_agent) DO NOTHING";
        self.db.execute(sql, &[&id, &ip, &user_agent]).await?;
        Ok(())
    }

    /// Notes that a stage of a session is done. 400 if there is no such session.
    pub async fn complete_ui_auth_stage(&self, id: &str, stage: &str, result: &Value) -> Result<()> {
        let sql = "INSERT INTO ui_auth_sessions_credentials (session_id, stage_type, result) VALUES ($1, $2, $3)
                   ON CONFLICT (session_id, stage_type) DO UPDATE SET result = EXCLUDED.result";
        let done = self.db.execute(sql, &[&id, &stage, &serde_json::to_string(result)?]).await;
        match done {
            Err(e) if crate::db::is_constraint(&e) => Err(Error::bad_request(format!("Unknown session ID: {id}"))),
            other => other.map(|_| ()),
        }
    }

    /// Stages that are done, with their results.
    pub async fn ui_auth_stages(&self, id: &str) -> Result<Map<String, Value>> {
        let sql = "SELECT stage_type, result FROM ui_auth_sessions_credentials WHERE session_id = $1";
        let rows = self.db.query(sql, &[&id]).await?;
        rows.iter().map(|r| Ok((r.get(0), serde_json::from_str(r.get(1))?))).collect()
    }

    /// Deletes sessions begun before a time; registration tokens they held are free again.
    pub async fn delete_old_ui_auth_sessions(&self, before_ms: i64) -> Result<()> {
        transaction!(self, "delete_old_ui_auth_sessions", |tx| {
            let sql = "SELECT session_id FROM ui_auth_sessions WHERE creation_time <= $1";
            let ids: Vec<String> = tx.query(sql, &[&before_ms]).await?.iter().map(|r| r.get(0)).collect();
            if ids.is_empty() {
                return Ok(());
            }
            tx.run("DELETE FROM ui_auth_sessions_ips WHERE session_id = ANY($1)", &[&ids]).await?;
            // A token that was used up is kept as `true`; one that is still held, as its text.
            tx.run(
                "UPDATE registration_tokens r SET pending = r.pending - c.n
                 FROM (SELECT result::jsonb #>> '{}' AS token, COUNT(*)::int AS n FROM ui_auth_sessions_credentials
                       WHERE session_id = ANY($1) AND stage_type = 'm.login.registration_token'
                         AND jsonb_typeof(result::jsonb) = 'string' GROUP BY 1) c
                 WHERE r.token = c.token",
                &[&ids],
            )
            .await?;
            tx.run("DELETE FROM ui_auth_sessions_credentials WHERE session_id = ANY($1)", &[&ids]).await?;
            tx.run("DELETE FROM ui_auth_sessions WHERE session_id = ANY($1)", &[&ids]).await?;
            Ok(())
        })
    }
}

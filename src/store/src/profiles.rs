//! Profiles: tables `profiles`, `profile_updates` and what the user directory shows of them.

use crate::{Row, Store, Stream, Tx, transaction};
use ruma::UserId;
use serde_json::{Map, Value, json};
use types::{Error, Result};

/// Most bytes of a profile as canonical JSON.
const MAX_SIZE: usize = 65_536;

/// A user's profile. Absent parts were never set, or were taken back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
    /// All other fields.
    pub fields: Map<String, Value>,
}

impl Profile {
    /// As clients see it.
    pub fn into_json(self) -> Map<String, Value> {
        let mut all = self.fields;
        if let Some(name) = self.displayname {
            all.insert("displayname".into(), name.into());
        }
        if let Some(url) = self.avatar_url {
            all.insert("avatar_url".into(), url.into());
        }
        all
    }
}

fn parse(r: &tokio_postgres::Row) -> Profile {
    let fields = match r.get::<_, Option<Value>>(2) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    Profile { displayname: r.get(0), avatar_url: r.get(1), fields }
}

impl Store {
    /// The profile of a user of this server. None: there never was one.
    pub async fn profile(&self, user_id: &str) -> Result<Option<Profile>> {
        let sql = "SELECT displayname, avatar_url, fields FROM profiles WHERE full_user_id = $1";
        Ok(self.db.query_opt(sql, &[&user_id]).await?.as_ref().map(parse))
    }

    /// Sets a field; None removes it. `stream`: also tells of it in the profile_updates stream
    /// (`include_profile_updates_in_sync`; only a writer of events may). 400 M_PROFILE_TOO_LARGE beyond 64 KiB.
    pub async fn set_profile_field(
        &self,
        user_id: &UserId,
        field: &str,
        value: Option<&Value>,
        stream: bool,
    ) -> Result<()> {
        transaction!(self, "set_profile_field", |tx| {
            if let Some(value) = value {
                check_size(tx, user_id, field, value).await?;
            }
            write_field(tx, user_id, field, value).await?;
            if stream {
                self.tell_of_profile(tx, user_id, field).await?;
            }
            Ok(())
        })
    }

    /// Queues the change for the user and all local users who share a room with them.
    async fn tell_of_profile(&self, tx: &mut Tx, user_id: &UserId, field: &str) -> Result<()> {
        let id = tx.next(&self.streams, Stream::ProfileUpdates).await?;
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
        let fields = json!([field]);
        tx.run(
            "INSERT INTO profile_updates (stream_id, instance_name, user_id, action, affected_fields, inserted_ts)
             VALUES ($1, $2, $3, 'update', $4, $5)",
            &[&id, &self.instance(), &user_id.as_str(), &fields, &now_ms],
        )
        .await?;
        tx.run(
            "INSERT INTO profile_updates_per_user (stream_id, user_id, inserted_ts)
             SELECT $1, u, $3 FROM (
                 SELECT $2 AS u UNION
                 SELECT them.user_id FROM local_current_membership me
                 JOIN local_current_membership them USING (room_id)
                 WHERE me.user_id = $2 AND me.membership = 'join' AND them.membership = 'join') t",
            &[&id, &user_id.as_str(), &now_ms],
        )
        .await?;
        let row = Row::ProfileUpdate {
            user_id: user_id.to_string(),
            action: "update".to_owned(),
            fields: Some(vec![field.to_owned()]),
        };
        tx.announce(Stream::ProfileUpdates, id, row);
        Ok(())
    }

    /// Shows a profile in the user directory.
    pub async fn show_in_directory(
        &self,
        user_id: &UserId,
        displayname: Option<&str>,
        avatar_url: Option<&str>,
    ) -> Result<()> {
        transaction!(self, "update_profiles_in_user_dir", |tx| {
            let id = user_id.as_str();
            tx.run(
                "INSERT INTO user_directory (user_id, display_name, avatar_url) VALUES ($1, $2, $3)
                 ON CONFLICT (user_id) DO UPDATE SET display_name = EXCLUDED.display_name,
                     avatar_url = EXCLUDED.avatar_url",
                &[&id, &displayname, &avatar_url],
            )
            .await?;
            tx.run(
                "INSERT INTO user_directory_search (user_id, vector)
                 VALUES ($1, setweight(to_tsvector('simple', $2::text), 'A') || setweight(to_tsvector('simple', $3::text), 'D')
                             || setweight(to_tsvector('simple', normalize(lower(COALESCE($4::text, '')), NFKC)), 'B'))
                 ON CONFLICT (user_id) DO UPDATE SET vector = EXCLUDED.vector",
                &[&id, &user_id.localpart(), &user_id.server_name().as_str(), &displayname],
            )
            .await?;
            Ok(())
        })
    }
}

async fn write_field(tx: &Tx, user_id: &UserId, field: &str, value: Option<&Value>) -> Result<()> {
    let (id, localpart) = (user_id.as_str(), user_id.localpart());
    match (field, value) {
        ("displayname" | "avatar_url", value) => {
            let text = value.and_then(Value::as_str);
            let sql = format!(
                "INSERT INTO profiles (user_id, full_user_id, {field}) VALUES ($1, $2, $3)
                 ON CONFLICT (user_id) DO UPDATE SET full_user_id = EXCLUDED.full_user_id, {field} = EXCLUDED.{field}"
            );
            tx.run(&sql, &[&localpart, &id, &text]).await?;
        }
        (_, Some(value)) => {
            tx.run(
                "INSERT INTO profiles (user_id, full_user_id, fields) VALUES ($1, $2, jsonb_build_object($3::text, $4::jsonb))
                 ON CONFLICT (user_id) DO UPDATE SET full_user_id = EXCLUDED.full_user_id,
                     fields = COALESCE(profiles.fields, '{}'::jsonb) || EXCLUDED.fields",
                &[&localpart, &id, &field, value],
            )
            .await?;
        }
        (_, None) => {
            tx.run("UPDATE profiles SET fields = fields - $2::text WHERE user_id = $1", &[&localpart, &field]).await?;
        }
    }
    Ok(())
}

async fn check_size(tx: &Tx, user_id: &UserId, field: &str, value: &Value) -> Result<()> {
    let sql = "SELECT octet_length((fields - $1::text)::text), octet_length(displayname), octet_length(avatar_url)
               FROM profiles WHERE user_id = $2";
    let mut total = serde_json::to_string(&json!({field: value}))?.len();
    if let Some(row) = tx.query_opt(sql, &[&field, &user_id.localpart()]).await? {
        let length = |i: usize| row.get::<_, Option<i32>>(i).map_or(0, |n| n.max(0) as usize);
        total += length(0).saturating_sub(1);
        // Quotes, colon and comma around key and value.
        for (i, name) in [(1, "displayname"), (2, "avatar_url")] {
            if field != name && length(i) > 0 {
                total += length(i) + name.len() + 6;
            }
        }
    }
    if total > MAX_SIZE {
        return Err(Error::client(400, "M_PROFILE_TOO_LARGE", "Profile too large"));
    }
    Ok(())
}

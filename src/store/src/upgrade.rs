//! What the members of a room keep about it, for when it is upgraded.

use crate::Store;
use serde_json::Value;
use types::Result;

/// See [`Store::kept_about_room`].
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// (user, tag, content), from `room_tags`.
    pub tags: Vec<(String, String, Value)>,
    /// (user, whole `m.direct`), of users whose `m.direct` lists the room.
    pub direct: Vec<(String, Value)>,
    /// Users with push rules that name the room.
    pub with_push_rules: Vec<String>,
}

impl Store {
    /// Tags, `m.direct` and push rules of the joined local members of a room.
    pub async fn kept_about_room(&self, room_id: &str) -> Result<Kept> {
        let tags = "SELECT t.user_id, t.tag, t.content
                    FROM room_tags t JOIN local_current_membership l USING (user_id, room_id)
                    WHERE l.room_id = $1 AND l.membership = 'join'";
        let direct = "SELECT a.user_id, a.content FROM account_data a JOIN local_current_membership l USING (user_id)
                      WHERE l.room_id = $1 AND l.membership = 'join' AND a.account_data_type = 'm.direct'
                        AND strpos(a.content, $1) > 0";
        let rules =
            "SELECT DISTINCT p.user_name FROM push_rules p JOIN local_current_membership l ON l.user_id = p.user_name
                     WHERE l.room_id = $1 AND l.membership = 'join' AND strpos(p.conditions, $1) > 0";
        let params: crate::Params<'_> = &[&room_id];
        let (tags, direct, rules) = futures::try_join!(
            self.db.query(tags, params),
            self.db.query(direct, params),
            self.db.query(rules, params)
        )?;
        let tag = |r: &tokio_postgres::Row| Ok((r.get(0), r.get(1), serde_json::from_str(r.get(2))?));
        let direct_of = |r: &tokio_postgres::Row| Ok((r.get(0), serde_json::from_str(r.get(1))?));
        Ok(Kept {
            tags: tags.iter().map(tag).collect::<Result<_>>()?,
            direct: direct.iter().map(direct_of).collect::<Result<_>>()?,
            with_push_rules: rules.iter().map(|r| r.get(0)).collect(),
        })
    }
}

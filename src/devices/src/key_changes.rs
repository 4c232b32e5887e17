//! Whose keys a client has to fetch anew, and whose it may forget: `device_lists` of `/sync`, `/keys/changes`.

use crate::Devices;
use std::collections::BTreeSet;
use store::device_rooms::MemberMove;
use types::{MultiToken, Result, StreamToken};

/// `device_lists` of a sync.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceListChanges {
    pub changed: BTreeSet<String>,
    pub left: BTreeSet<String>,
}

/// What happened to memberships since a token, as far as device lists care.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// Rooms the user is joined to now.
    pub joined_rooms: Vec<String>,
    /// Those of them they were not joined to before.
    pub newly_joined_rooms: Vec<String>,
    /// Rooms the user was joined to before.
    pub newly_left_rooms: Vec<String>,
    /// Others who came (join, invite, knock) to rooms the user is in.
    pub newcomers: BTreeSet<String>,
    /// Others who left rooms the user is in.
    pub leavers: BTreeSet<String>,
}

fn is_in(membership: &Option<String>) -> bool {
    matches!(membership.as_deref(), Some("join" | "invite" | "knock"))
}

impl Moves {
    /// Sorts out membership changes (in order) of the user and of others in their rooms.
    fn from_changes(user_id: &str, joined_rooms: Vec<String>, changes: &[MemberMove]) -> Self {
        let mut moves = Moves::default();
        let (mut joined, mut left) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            if change.user_id == user_id {
                let was = change.before.as_deref() == Some("join");
                let is = change.after.as_deref() == Some("join");
                if is && !was {
                    joined.insert(change.room_id.clone());
                    left.remove(&change.room_id);
                } else if was && !is {
                    joined.remove(&change.room_id);
                    left.insert(change.room_id.clone());
                }
            }
            if !joined_rooms.contains(&change.room_id) {
                continue;
            }
            if is_in(&change.after) && !is_in(&change.before) {
                moves.leavers.remove(&change.user_id);
                moves.newcomers.insert(change.user_id.clone());
            } else if is_in(&change.before) && !is_in(&change.after) {
                moves.newcomers.remove(&change.user_id);
                moves.leavers.insert(change.user_id.clone());
            }
        }
        moves.newly_joined_rooms = joined.into_iter().collect();
        moves.newly_left_rooms = left.into_iter().collect();
        moves.joined_rooms = joined_rooms;
        moves
    }
}

impl Devices {
    /// Changes in (`from`, `to`] as `user_id` should hear of them.
    pub async fn device_list_changes(
        &self,
        user_id: &str,
        moves: &Moves,
        from: &MultiToken,
        to: &MultiToken,
    ) -> Result<DeviceListChanges> {
        let store = &self.cx.store;
        let mut changed: BTreeSet<String> = BTreeSet::new();
        match store.device_changes_in_rooms(&moves.joined_rooms, from, to).await? {
            Some(users) => {
                changed.extend(users);
                changed.extend(store.users_whose_devices_changed(&[user_id.to_owned()], from, to).await?);
            }
            None => {
                let mut users = store.users_in_rooms(&moves.joined_rooms).await?;
                users.insert(user_id.to_owned());
                let users: Vec<String> = users.into_iter().collect();
                changed.extend(store.users_whose_devices_changed(&users, from, to).await?);
            }
        }
        changed.extend(moves.newcomers.iter().cloned());
        changed.extend(store.users_in_rooms(&moves.newly_joined_rooms).await?);
        changed.extend(store.users_whose_signatures_changed(user_id, from).await?);
        let mut left = moves.leavers.clone();
        left.extend(store.users_in_rooms(&moves.newly_left_rooms).await?);
        let gone: Vec<String> = left.iter().cloned().collect();
        for user in store.users_among_rooms(&gone, &moves.joined_rooms).await? {
            left.remove(&user);
        }
        Ok(DeviceListChanges { changed, left })
    }

    /// `/keys/changes`: everything between a token and now.
    pub async fn key_changes(&self, user_id: &str, from: &StreamToken) -> Result<DeviceListChanges> {
        let store = &self.cx.store;
        let now = store.streams.now();
        let joined: Vec<String> = store.joined_rooms(user_id).await?.into_iter().map(String::from).collect();
        let changes = store.member_moves(user_id, &joined, &from.room, &now.room).await?;
        let moves = Moves::from_changes(user_id, joined, &changes);
        self.device_list_changes(user_id, &moves, &from.device_lists, &now.device_lists).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(room: &str, user: &str, before: &str, after: &str) -> MemberMove {
        let some = |m: &str| (!m.is_empty()).then(|| m.to_owned());
        MemberMove { room_id: room.into(), user_id: user.into(), before: some(before), after: some(after) }
    }

    #[test]
    fn the_last_of_several_moves_counts() {
        let moves = Moves::from_changes(
            "@me:x",
            vec!["!in".into()],
            &[
                change("!out", "@me:x", "join", "leave"),
                change("!in", "@me:x", "join", "leave"),
                change("!in", "@me:x", "leave", "join"),
                change("!in", "@a:x", "", "invite"),
                change("!in", "@a:x", "invite", "join"),
                change("!in", "@b:x", "join", "leave"),
                change("!in", "@b:x", "leave", "join"),
                change("!in", "@c:x", "join", "ban"),
                change("!in", "@d:x", "join", "join"),
            ],
        );
        assert_eq!(moves.newly_left_rooms, ["!out"]);
        assert_eq!(moves.newly_joined_rooms, ["!in"]);
        assert!(moves.newcomers.contains("@a:x") && moves.newcomers.contains("@b:x"));
        assert!(!moves.newcomers.contains("@d:x"));
        assert_eq!(moves.leavers.into_iter().collect::<Vec<_>>(), ["@c:x"]);
    }
}

//! Deactivated users leave their rooms, one after the other, also after a restart.

use crate::Accounts;
use rooms::membership::{Action, Change};
use ruma::{RoomId, UserId};
use slog::{info, warn};
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{Requester, Result};

impl Accounts {
    /// Invitations and knocks of a deactivated user are taken back at once.
    pub(crate) async fn reject_invites(&self, user_id: &UserId) {
        let rooms = match self.cx.store.rooms_of_user(user_id.as_str(), &["invite", "knock"]).await {
            Ok(rooms) => rooms,
            Err(e) => return warn!(self.cx.log, "cannot find invitations"; "user" => %user_id, "error" => %e),
        };
        for room in rooms {
            self.leave(user_id, &room.room_id).await;
        }
    }

    /// Has the main process leave the user's rooms; if it cannot be told now, it does so when it starts next.
    pub(crate) async fn ask_to_part(&self, user_id: &UserId) {
        if self.cx.duties.is_main {
            return self.part_deactivated();
        }
        let payload = serde_json::Map::from_iter([("by_admin".to_owned(), false.into())]);
        let args = [user_id.as_str()];
        if let Err(e) = self.cx.peers.call(types::MASTER, "notify_account_deactivated", &args, true, payload).await {
            warn!(self.cx.log, "main process not told of a deactivation"; "user" => %user_id, "error" => %e);
        }
    }

    /// Starts leaving rooms for deactivated users, unless that is under way. For the main process.
    pub fn part_deactivated(&self) {
        if self.inner.parting.swap(true, Ordering::AcqRel) {
            return;
        }
        let accounts = self.clone();
        tokio::spawn(async move {
            loop {
                match accounts.part_next().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => {
                        warn!(accounts.cx.log, "cannot leave rooms of a deactivated user"; "error" => %e);
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    }
                }
            }
            accounts.inner.parting.store(false, Ordering::Release);
        });
    }

    /// False if nobody is left.
    async fn part_next(&self) -> Result<bool> {
        let Some(user) = self.cx.store.next_to_part().await? else { return Ok(false) };
        let user_id = <&UserId>::try_from(user.as_str())?;
        for room in self.cx.store.rooms_joined_by(&user).await?.iter() {
            self.leave(user_id, room).await;
            self.cx.store.forget_room(&user, room).await?;
        }
        self.cx.store.parted(&user).await?;
        info!(self.cx.log, "deactivated user left all rooms"; "user" => user);
        Ok(true)
    }

    /// Rooms that cannot be left are passed over.
    async fn leave(&self, user_id: &UserId, room: &str) {
        let Ok(room_id) = <&RoomId>::try_from(room) else { return };
        let leave = Change::new(user_id.to_owned(), Action::Leave);
        if let Err(e) = self.rooms.change_membership(&Requester::for_user(user_id), room_id, leave).await {
            info!(self.cx.log, "room not left"; "user" => %user_id, "room" => room, "error" => %e);
        }
    }
}

//! What is not in a room: account data, presence, to-device messages, device lists, key counts.

use super::answer::{Answer, DeviceLists};
use super::rooms::Told;
use super::{Pass, Request};
use crate::Sync;
use crate::filter::allows_entry;
use crate::presence;
use devices::Moves;
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use types::Result;

/// To-device messages of one answer.
const MAX_TO_DEVICE: i64 = 100;

impl Pass<'_> {
    pub(super) async fn add_account_data(&mut self, answer: &mut Answer) -> Result<()> {
        let filter = &self.rq.filter.account_data;
        if filter.refuses_everything() {
            return Ok(());
        }
        let store = &self.sync.cx.store;
        let since = self.fresh_since();
        let mut data = store.global_account_data_since(self.user, since.map(|s| s.account_data)).await?;
        let rules_changed = match since {
            Some(s) if s.push_rules >= self.now.push_rules => false,
            Some(s) => store.push_rules_changed(self.user, s.push_rules).await?,
            None => true,
        };
        if rules_changed {
            data.retain(|(kind, _)| kind != "m.push_rules");
            data.push(("m.push_rules".into(), self.sync.push_rules(&self.rq.who.user_id).await?));
        }
        let wanted = data.into_iter().filter(|(kind, _)| allows_entry(filter, kind, None));
        answer.account_data.events = wanted.map(|(kind, content)| json!({"type": kind, "content": content})).collect();
        Ok(())
    }

    /// With presence switched off what was not sent before is still sent, so that nobody stays online for ever.
    pub(super) fn wants_presence(&self) -> bool {
        let enabled =
            self.sync.cx.config.presence.enabled || self.since.is_some_and(|s| s.presence < self.now.presence);
        enabled && !self.rq.filter.presence.refuses_everything()
    }

    pub(super) async fn add_presence(&mut self, told: &Told, answer: &mut Answer) -> Result<()> {
        let sync = self.sync;
        let since = self.fresh_since().map(|s| s.presence);
        let mut users: HashSet<String> = match since {
            Some(s) if s >= self.now.presence => HashSet::new(),
            Some(s) => self.interesting_changes(s).await?,
            None => self.neighbours().await?,
        };
        let with_offline = since.is_some() || sync.cx.config.presence.include_offline_users_on_sync;
        let mut extra: HashSet<String> = told.newcomers.iter().cloned().collect();
        if !told.newly_joined.is_empty() {
            let rooms: Vec<&str> = told.newly_joined.iter().map(String::as_str).collect();
            for members in sync.cx.store.joined_members_of(&rooms).await?.values() {
                extra.extend(members.iter().cloned());
            }
        }
        extra.remove(self.user);
        users.retain(|u| !extra.contains(u));
        // Without offline users only those in memory can be anything else.
        let mut states = if with_offline {
            sync.live.presence.of(&sync.cx.store, users.iter().map(String::as_str)).await?
        } else {
            users.iter().filter_map(|u| sync.live.presence.get(u)).filter(|p| p.state != "offline").collect()
        };
        states.extend(sync.live.presence.of(&sync.cx.store, extra.iter().map(String::as_str)).await?);
        states.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        let now = sync.cx.now_ms();
        let filter = &self.rq.filter.presence;
        let wanted = states.iter().filter(|p| allows_entry(filter, "m.presence", Some(&p.user_id)));
        answer.presence.events = wanted
            .map(|p| json!({"type": "m.presence", "sender": p.user_id, "content": presence::content(p, now)}))
            .collect();
        Ok(())
    }

    /// Users whose presence changed and who share a room with this one.
    async fn interesting_changes(&self, since: i64) -> Result<HashSet<String>> {
        let store = &self.sync.cx.store;
        let Some(changed) = self.sync.live.presence.changed_since(since) else {
            let mut users = self.neighbours().await?;
            let stored = store.presence_between(since, i64::MAX, 100_000).await?;
            let changed: HashSet<String> = stored.into_iter().map(|(_, p)| p.user_id).collect();
            users.retain(|u| changed.contains(u));
            return Ok(users);
        };
        let rooms: HashSet<&str> = self.presence_rooms().map(String::as_str).collect();
        let own = changed.contains(self.user).then(|| self.user.to_owned());
        let mut users = self.sync.in_rooms(changed, &rooms).await?;
        users.extend(own);
        Ok(users)
    }

    fn presence_rooms(&self) -> impl Iterator<Item = &String> {
        let excluded = &self.sync.cx.config.server.exclude_rooms_from_presence;
        self.joined.iter().filter(move |r| !excluded.contains(r))
    }

    async fn neighbours(&self) -> Result<HashSet<String>> {
        let rooms: Vec<&str> = self.presence_rooms().map(String::as_str).collect();
        let mut users = HashSet::from([self.user.to_owned()]);
        for user in self.sync.cx.store.joined_members_of(&rooms).await?.values().flat_map(|members| members.iter()) {
            // Mostly the same in many rooms.
            if !users.contains(user) {
                users.insert(user.clone());
            }
        }
        Ok(users)
    }

    pub(super) async fn add_device_lists(&mut self, told: &Told, answer: &mut Answer) -> Result<()> {
        let Some(since) = self.since else { return Ok(()) };
        let moves = Moves {
            joined_rooms: self.joined.clone(),
            newly_joined_rooms: told.newly_joined.clone(),
            newly_left_rooms: told.newly_left.clone(),
            newcomers: told.newcomers.iter().cloned().collect(),
            leavers: told.leavers.iter().cloned().collect(),
        };
        let nothing_moved = moves.newly_joined_rooms.is_empty()
            && moves.newly_left_rooms.is_empty()
            && moves.newcomers.is_empty()
            && moves.leavers.is_empty();
        if nothing_moved && since.device_lists == self.now.device_lists {
            return Ok(());
        }
        let found = self
            .sync
            .devices
            .device_list_changes(self.user, &moves, &since.device_lists, &self.now.device_lists)
            .await?;
        let list = |users: BTreeSet<String>| users.into_iter().collect();
        answer.device_lists = DeviceLists { changed: list(found.changed), left: list(found.left) };
        Ok(())
    }

    pub(super) async fn add_to_device(&mut self, answer: &mut Answer) -> Result<()> {
        let Some(device) = &self.rq.who.device_id else { return Ok(()) };
        let since = self.since.map_or(0, |s| s.to_device);
        let store = &self.sync.cx.store;
        if since >= self.now.to_device || !store.changed.to_device.since(self.user, since) {
            return Ok(());
        }
        let (messages, upto) =
            store.to_device_messages(self.user, device, since, self.now.to_device, MAX_TO_DEVICE).await?;
        answer.to_device.events = messages;
        self.now.to_device = upto;
        Ok(())
    }
}

impl Sync {
    pub(super) async fn add_key_counts(&self, rq: &Request, answer: &mut Answer) -> Result<()> {
        let Some(device) = &rq.who.device_id else { return Ok(()) };
        let user = rq.who.user_id.as_str();
        let store = &self.cx.store;
        let (counts, unused) =
            futures::try_join!(store.count_one_time_keys(user, device), store.unused_fallback_key_types(user, device))?;
        answer.device_one_time_keys_count = (*counts).clone();
        answer.device_unused_fallback_key_types = unused.to_vec();
        Ok(())
    }
}

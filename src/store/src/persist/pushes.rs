//! Notifications of events as columns, for `event_push_actions` and `event_push_actions_staging`.

use super::PushAction;
use tokio_postgres::types::ToSql;

#[derive(Default)]
pub(super) struct Pushes<'a> {
    pub events: Vec<&'a str>,
    pub users: Vec<&'a str>,
    pub actions: Vec<&'a str>,
    pub notify: Vec<i16>,
    pub highlight: Vec<i16>,
    pub unread: Vec<i16>,
    pub threads: Vec<&'a str>,
}

impl<'a> Pushes<'a> {
    /// Of events' ids with what they do to somebody, and their threads.
    pub fn of(push: impl Iterator<Item = (&'a str, &'a PushAction, &'a str)>) -> Self {
        let mut columns = Self::default();
        for (event, action, thread) in push {
            columns.events.push(event);
            columns.users.push(&action.user_id);
            columns.actions.push(&action.actions);
            columns.notify.push(i16::from(action.notify));
            columns.highlight.push(i16::from(action.highlight));
            columns.unread.push(i16::from(action.unread));
            columns.threads.push(thread);
        }
        columns
    }

    /// In the order above, and a time at the end.
    pub fn params<'p>(&'p self, now_ms: &'p i64) -> [&'p (dyn ToSql + Sync); 8] {
        let Self { events, users, actions, notify, highlight, unread, threads } = self;
        [events, users, actions, notify, highlight, unread, threads, now_ms]
    }
}

//! Working off `scheduled_tasks`, in the process of the background tasks: Synapse workers leave work there.

use crate::App;
use replication::Command;
use ruma::UserId;
use slog::{info, warn};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::db::is_away;
use store::scheduled_tasks::Task;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::AbortHandle;
use types::{Error, Result};

/// Carries a changed profile into the user's rooms.
const UPDATE_JOIN_STATES: &str = "update_join_states";
/// Removes what waited for a device that is gone.
const DELETE_DEVICE_MESSAGES: &str = "delete_device_messages";
/// Removes one-time keys that clients may have forgotten; Synapse's database update leaves this task once.
const DELETE_OLD_OTKS: &str = "delete_old_otks";
/// Tasks of other kinds are left to whoever knows them.
const KNOWN: &[&str] = &[UPDATE_JOIN_STATES, DELETE_DEVICE_MESSAGES, DELETE_OLD_OTKS];

/// Users whose one-time keys are looked at together, and how long the database rests afterwards.
const OTK_USERS: i64 = 100;
const OTK_PAUSE: Duration = Duration::from_secs(4);
/// One-time keys of this age may have been forgotten by their client. Milliseconds.
const OTK_AGE_MS: i64 = 7 * 24 * 3600 * 1000;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The pause before a task is begun again that met PostgreSQL or another process being away.
const AGAIN: Duration = Duration::from_secs(5);
/// Tasks under way at once.
const MOST: usize = 5;
/// Ended tasks are kept for a week. Milliseconds.
const KEEP_MS: i64 = 7 * 24 * 3600 * 1000;

/// What is under way, by id.
#[derive(Clone, Default)]
struct Running {
    tasks: Arc<Mutex<HashMap<String, AbortHandle>>>,
    /// One ended: another may have waited for its place.
    ended: Arc<Notify>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl App {
    /// Runs tasks as they come and as they become due. Never returns.
    pub(crate) async fn run_tasks(self, mut commands: broadcast::Receiver<Command>) {
        let running = Running::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                _ = look.tick() => self.look_for_tasks(&running).await,
                _ = self.accounts.task_left() => self.look_for_tasks(&running).await,
                _ = running.ended.notified() => self.look_for_tasks(&running).await,
                command = commands.recv() => match command {
                    Ok(Command::NewActiveTask { .. }) | Err(RecvError::Lagged(_)) => self.look_for_tasks(&running).await,
                    Ok(Command::CancelTask { id }) => self.cancel_task(&running, &id).await,
                    Ok(_) => Ok(()),
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(e) = done {
                warn!(self.cx.log, "cannot look for scheduled tasks"; "error" => %e);
            }
        }
    }

    async fn cancel_task(&self, running: &Running, id: &str) -> Result<()> {
        if let Some(task) = running.lock().remove(id) {
            task.abort();
        }
        self.store.set_task_status(id, "cancelled", None, self.cx.now_ms()).await?;
        Ok(())
    }

    async fn look_for_tasks(&self, running: &Running) -> Result<()> {
        self.store.delete_ended_tasks(self.cx.now_ms() - KEEP_MS).await?;
        for task in self.store.due_tasks(KNOWN, self.cx.now_ms(), MOST as i64).await? {
            self.start_task(running, task);
        }
        Ok(())
    }

    /// Starts a task unless it or too many others are under way; then the next look finds it.
    fn start_task(&self, running: &Running, task: Task) {
        let mut tasks = running.lock();
        if tasks.contains_key(&task.id) || tasks.len() >= MOST {
            return;
        }
        let (app, ended, id) = (self.clone(), running.clone(), task.id.clone());
        let work = tokio::spawn(async move {
            app.carry_out(&task).await;
            ended.lock().remove(&task.id);
            ended.ended.notify_one();
        });
        tasks.insert(id, work.abort_handle());
    }

    /// Returns when the task has ended. Where PostgreSQL or another process is away it is begun again after a while:
    /// what was done already does no harm when it is done again.
    async fn carry_out(&self, task: &Task) {
        while let Err(e) = self.attempt(task).await {
            if !is_away(&e) {
                return warn!(self.cx.log, "the end of a task was not noted"; "id" => &task.id, "error" => %e);
            }
            info!(self.cx.log, "scheduled task will be tried again"; "action" => &task.action, "error" => %e);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Does a task and notes how it ended. An error means that this is not noted.
    async fn attempt(&self, task: &Task) -> Result<()> {
        if !self.store.set_task_status(&task.id, "active", None, self.cx.now_ms()).await? {
            return Ok(());
        }
        let (status, error) = match self.do_task(task).await {
            Ok(()) => ("complete", None),
            Err(e) if is_away(&e) => return Err(e),
            Err(e) => ("failed", Some(e.to_string())),
        };
        self.store.set_task_status(&task.id, status, error.as_deref(), self.cx.now_ms()).await?;
        info!(self.cx.log, "scheduled task ended"; "action" => &task.action, "status" => status, "error" => error.as_deref());
        Ok(())
    }

    async fn do_task(&self, task: &Task) -> Result<()> {
        match task.action.as_str() {
            UPDATE_JOIN_STATES => {
                let user_id = task.resource_id.as_deref().ok_or_else(|| Error::internal("resource_id: missing"))?;
                self.accounts.carry_profile(<&UserId>::try_from(user_id)?).await
            }
            DELETE_DEVICE_MESSAGES => {
                let text = |key: &str| {
                    task.params[key].as_str().ok_or_else(|| Error::internal(format!("params.{key}: no text")))
                };
                let upto = task.params["up_to_stream_id"].as_i64();
                let upto = upto.ok_or_else(|| Error::internal("params.up_to_stream_id: no number"))?;
                self.store.delete_to_device_upto(text("user_id")?, text("device_id")?, upto).await
            }
            DELETE_OLD_OTKS => {
                let before = self.cx.now_ms() - OTK_AGE_MS;
                let mut after = String::new();
                while let Some(last) = self.store.delete_old_one_time_keys(&after, OTK_USERS, before).await? {
                    after = last;
                    tokio::time::sleep(OTK_PAUSE).await;
                }
                Ok(())
            }
            other => Err(Error::internal(format!("action {other} is not known"))),
        }
    }
}

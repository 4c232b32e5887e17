//! On whose behalf a request is made.

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

/// The owner of an access token, as passed between processes (HTTP replication's `requester`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Requester {
    pub user_id: OwnedUserId,
    /// Row of `access_tokens`; none for appservices and guests.
    pub access_token_id: Option<i64>,
    pub is_guest: bool,
    #[serde(default)]
    pub scope: Vec<String>,
    pub shadow_banned: bool,
    pub device_id: Option<String>,
    /// Id of the application service, if one is calling. The wire name is Synapse's.
    #[serde(rename = "app_server_id")]
    pub app_service: Option<String>,
    /// Who proved their identity; differs from `user_id` for puppeting admins.
    pub authenticated_entity: String,
}

impl Requester {
    /// A request the server makes itself for one of its users.
    pub fn for_user(user_id: &UserId) -> Self {
        Self {
            user_id: user_id.to_owned(),
            access_token_id: None,
            is_guest: false,
            scope: Vec::new(),
            shadow_banned: false,
            device_id: None,
            app_service: None,
            authenticated_entity: user_id.to_string(),
        }
    }
}

//! The media repository and URL previews.

use std::path::PathBuf;

use crate::ip::IpRanges;
use crate::read::Section;
use crate::server::{UNSPECIFIED, read_ranges};

/// Settings of the media repository. Sizes in bytes, durations in milliseconds.
#[derive(Clone, Debug)]
pub struct Media {
    /// `media_store_path`.
    pub store_path: PathBuf,
    /// `enable_local_media_storage`.
    pub local_storage: bool,
    /// `media_storage_providers` of the kind `file_system`.
    pub storage_providers: Vec<StorageProvider>,
    /// `max_upload_size`.
    pub max_upload_size: u64,
    /// `max_image_pixels`.
    pub max_image_pixels: u64,
    /// `max_pending_media_uploads`.
    pub max_pending_uploads: u64,
    /// `unused_expiration_time`.
    pub unused_expiration_time_ms: u64,
    /// `media_upload_limits`.
    pub upload_limits: Vec<UploadLimit>,
    /// `prevent_media_downloads_from`.
    pub prevent_downloads_from: Vec<String>,
    /// `dynamic_thumbnails`.
    pub dynamic_thumbnails: bool,
    /// `thumbnail_sizes`.
    pub thumbnail_sizes: Vec<ThumbnailSize>,
    /// `enable_authenticated_media`.
    pub authenticated: bool,
    /// `media_retention.local_media_lifetime`.
    pub local_lifetime_ms: Option<u64>,
    /// `media_retention.remote_media_lifetime`.
    pub remote_lifetime_ms: Option<u64>,
    /// URL previews, if enabled.
    pub url_preview: Option<UrlPreview>,
}

/// A second place for media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageProvider {
    /// Folder.
    pub directory: PathBuf,
    /// Keep local users' files there.
    pub store_local: bool,
    /// Keep other servers' files there.
    pub store_remote: bool,
    /// Wait for it before an upload is answered.
    pub store_synchronous: bool,
}

/// An entry of `media_upload_limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadLimit {
    /// Bytes a user may upload…
    pub max_bytes: u64,
    /// … in this many milliseconds.
    pub time_period_ms: u64,
    /// Page that explains the limit.
    pub info_uri: Option<String>,
    /// Whether the user can buy more.
    pub can_upgrade: bool,
}

/// A thumbnail that is made at upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThumbnailSize {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Cut to the size rather than fit into it.
    pub crop: bool,
}

/// URL previews.
#[derive(Clone, Debug)]
pub struct UrlPreview {
    /// `max_spider_size`.
    pub max_spider_size: u64,
    /// `url_preview_ip_range_blacklist` and the unspecified addresses.
    pub deny: IpRanges,
    /// `url_preview_ip_range_whitelist`.
    pub allow: IpRanges,
    /// `url_preview_url_blacklist`: part of the URL → glob, or regular expression if it starts with `^`.
    pub url_blacklist: Vec<Vec<(String, String)>>,
    /// `url_preview_accept_language`.
    pub accept_language: Vec<String>,
}

pub(crate) fn read(root: &Section<'_>) -> Media {
    let retention = root.child("media_retention");
    Media {
        store_path: root.file("media_store_path").unwrap_or_else(|| "media_store".into()),
        local_storage: root.flag("enable_local_media_storage", true),
        storage_providers: providers(root),
        max_upload_size: root.size("max_upload_size").unwrap_or(50 << 20),
        max_image_pixels: root.size("max_image_pixels").unwrap_or(32 << 20),
        max_pending_uploads: root.count("max_pending_media_uploads", 5),
        unused_expiration_time_ms: root.duration_or("unused_expiration_time", 86_400_000),
        upload_limits: root.maps("media_upload_limits").iter().filter_map(upload_limit).collect(),
        prevent_downloads_from: root.strings("prevent_media_downloads_from"),
        dynamic_thumbnails: root.flag("dynamic_thumbnails", false),
        thumbnail_sizes: thumbnails(root),
        authenticated: root.flag("enable_authenticated_media", true),
        local_lifetime_ms: retention.duration("local_media_lifetime"),
        remote_lifetime_ms: retention.duration("remote_media_lifetime"),
        url_preview: url_preview(root),
    }
}

fn upload_limit(section: &Section<'_>) -> Option<UploadLimit> {
    for key in ["max_size", "time_period"] {
        if section.some(key).is_none() {
            section.error(key, "missing");
        }
    }
    Some(UploadLimit {
        max_bytes: section.size("max_size")?,
        time_period_ms: section.duration("time_period")?,
        info_uri: section.nonempty("info_uri"),
        can_upgrade: section.flag("can_upgrade", false),
    })
}

const FILE_PROVIDERS: &[&str] = &[
    "file_system",
    "synapse.rest.media.v1.storage_provider",
    "synapse.media.storage_provider.FileStorageProviderBackend",
];

fn providers(root: &Section<'_>) -> Vec<StorageProvider> {
    let mut all = Vec::new();
    for section in root.maps("media_storage_providers") {
        let module = section.string_or("module", "");
        if !FILE_PROVIDERS.contains(&module.as_str()) {
            section.error("module", format!("found {module:?}; allowed: file_system (Python modules can't be run)"));
            continue;
        }
        let Some(directory) = section.child("config").file("directory") else {
            section.child("config").error("directory", "missing; allowed: a folder");
            continue;
        };
        all.push(StorageProvider {
            directory,
            store_local: section.flag("store_local", false),
            store_remote: section.flag("store_remote", false),
            store_synchronous: section.flag("store_synchronous", false),
        });
    }
    if let Some(directory) = root.file("backup_media_store_path") {
        if !all.is_empty() {
            root.error(
                "backup_media_store_path",
                "can't be set together with media_storage_providers; allowed: only the latter",
            );
        }
        let store_synchronous = root.flag("synchronous_backup_media_store", false);
        all.push(StorageProvider { directory, store_local: true, store_remote: true, store_synchronous });
    }
    all
}

fn thumbnails(root: &Section<'_>) -> Vec<ThumbnailSize> {
    if root.some("thumbnail_sizes").is_none() {
        return [(32, 32, true), (96, 96, true), (320, 240, false), (640, 480, false), (800, 600, false)]
            .map(|(width, height, crop)| ThumbnailSize { width, height, crop })
            .into();
    }
    let mut sizes = Vec::new();
    for section in root.maps("thumbnail_sizes") {
        for key in ["width", "height", "method"] {
            if section.some(key).is_none() {
                section.error(key, "missing");
            }
        }
        let side = |key| section.int(key, 1, 16_384).map(|n| n as u32);
        if let (Some(width), Some(height), Some(crop)) =
            (side("width"), side("height"), section.word("method", &[("crop", true), ("scale", false)]))
        {
            sizes.push(ThumbnailSize { width, height, crop });
        }
    }
    sizes
}

fn url_preview(root: &Section<'_>) -> Option<UrlPreview> {
    if !root.flag("url_preview_enabled", false) {
        return None;
    }
    let key = "url_preview_ip_range_blacklist";
    let proxied = root.some("http_proxy").is_some() || root.some("https_proxy").is_some();
    if !root.has(key) && !proxied {
        root.error(key, "missing; URL previews need a list of networks that must not be looked at");
    }
    let url_blacklist = root
        .maps("url_preview_url_blacklist")
        .iter()
        .map(|entry| {
            entry
                .map
                .iter()
                .filter_map(|(part, _)| {
                    Some((
                        part.to_owned(),
                        entry.string(part).or_else(|| entry.int(part, 0, 65535).map(|p| p.to_string()))?,
                    ))
                })
                .collect()
        })
        .collect();
    let languages = root.strings("url_preview_accept_language");
    Some(UrlPreview {
        max_spider_size: root.size("max_spider_size").unwrap_or(10 << 20),
        deny: read_ranges(root, key, UNSPECIFIED),
        allow: read_ranges(root, "url_preview_ip_range_whitelist", &[]),
        url_blacklist,
        accept_language: if languages.is_empty() { vec!["en".into()] } else { languages },
    })
}

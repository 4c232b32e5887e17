//! What people read outside their client: HTML pages and e-mails, made from templates that an admin may replace.

mod helo;
mod mail;
mod templates;

pub use mail::Mailer;
pub use minijinja::{Value, context};
pub use templates::Templates;

//! `plexus register-user` and `plexus hash-password`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use config::{Bind, Config, Resource, Role};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use unicode_normalization::UnicodeNormalization as _;

use crate::cli::{HashPassword, RegisterUser};
use crate::client::{Client, Target};
use crate::exit::{self, report};

/// What `/_synapse/admin/v1/register` takes.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    /// Localpart.
    pub name: &'a str,
    /// Password.
    pub password: &'a str,
    /// Server admin.
    pub admin: bool,
    /// `bot`, `support`, …
    pub user_type: Option<&'a str>,
}

/// How a registration ended.
pub enum Registered {
    /// The server's answer: user id, access token, device id.
    Made(serde_json::Value),
    /// M_USER_IN_USE
    Exists,
}

/// Registers a user with the shared secret: a nonce, then its HMAC with the user's details.
pub async fn register(
    client: &Client,
    target: &Target,
    secret: &str,
    user: &NewUser<'_>,
) -> Result<Registered, String> {
    const PATH: &str = "/_synapse/admin/v1/register";
    let (status, body) = client.get(target, PATH, None).await?;
    let nonce = body["nonce"].as_str().filter(|_| status == 200).ok_or_else(|| refused(status, &body))?;
    let body = serde_json::json!({
        "nonce": nonce,
        "username": user.name,
        "password": user.password,
        "mac": mac(secret, nonce, user)?,
        "admin": user.admin,
        "user_type": user.user_type,
    });
    let (status, answer) = client.post(target, PATH, None, &body).await?;
    match (status, answer["errcode"].as_str()) {
        (200, _) => Ok(Registered::Made(answer)),
        (_, Some("M_USER_IN_USE")) => Ok(Registered::Exists),
        _ => Err(refused(status, &answer)),
    }
}

fn mac(secret: &str, nonce: &str, user: &NewUser<'_>) -> Result<String, String> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|e| e.to_string())?;
    let admin = if user.admin { "admin" } else { "notadmin" };
    let mut parts = vec![nonce, user.name, user.password, admin];
    parts.extend(user.user_type);
    mac.update(parts.join("\0").as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

fn refused(status: u16, body: &serde_json::Value) -> String {
    format!(
        "the server answered {status} {} {}",
        body["errcode"].as_str().unwrap_or_default(),
        body["error"].as_str().unwrap_or_default()
    )
}

/// `plexus register-user`
pub fn register_user(args: &RegisterUser) -> ExitCode {
    match try_register(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("{message}");
            code
        }
    }
}

type Failed = (ExitCode, String);

fn failed(message: impl Into<String>) -> Failed {
    (ExitCode::FAILURE, message.into())
}

fn try_register(args: &RegisterUser) -> Result<(), Failed> {
    let Server { secret, target, authorities } = server(args)?;
    let name = match &args.user {
        Some(name) => name.clone(),
        None => ask("New user localpart: ")?,
    };
    if name.is_empty() {
        return Err(failed("no user name"));
    }
    let password = read_password(args)?;
    let admin = args.admin
        || (!args.no_admin
            && args.user.is_none()
            && matches!(ask("Make admin [no]: ")?.as_str(), "y" | "yes" | "true"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.to_string()))?;
    let user = NewUser { name: &name, password: &password, admin, user_type: args.user_type.as_deref() };
    let registered = runtime
        .block_on(async { register(&Client::new(authorities.as_deref())?, &target, &secret, &user).await })
        .map_err(failed)?;
    match registered {
        Registered::Made(answer) => println!("Registered {}", answer["user_id"].as_str().unwrap_or(&name)),
        Registered::Exists if args.exists_ok => println!("The user exists already."),
        Registered::Exists => return Err(failed("the user exists already")),
    }
    Ok(())
}

/// The server to register at.
struct Server {
    secret: String,
    target: Target,
    /// CA certificates it is known by; `None`: the system's.
    authorities: Option<PathBuf>,
}

fn server(args: &RegisterUser) -> Result<Server, Failed> {
    let given = args.server_url.as_deref().map(Target::parse).transpose().map_err(failed)?;
    if let Some(secret) = &args.shared_secret {
        let target = given.map_or_else(|| Target::parse("http://localhost:8008"), Ok).map_err(failed)?;
        return Ok(Server { secret: secret.clone(), target, authorities: None });
    }
    let config =
        Config::load(&args.config, Role::Homeserver).map_err(|errors| (report(&errors), String::new()))?.config;
    let secret = config
        .registration
        .shared_secret
        .as_ref()
        .ok_or_else(|| (exit::code(exit::CONFIG), "registration_shared_secret is not set".to_owned()))?;
    let secret = secret.expose().to_owned();
    match given {
        Some(target) => Ok(Server { secret, target, authorities: None }),
        None => {
            let target = own_listener(&config)
                .ok_or_else(|| failed("no listener with the resource client; say the server's URL"))?;
            Ok(Server { secret, target, authorities: config.workers.replication_ca.clone() })
        }
    }
}

/// Where the main process takes requests of clients: the first listener without TLS, or with TLS if the certificate's
/// CA is known by its file.
fn own_listener(config: &Config) -> Option<Target> {
    config.listeners.iter().filter(|l| l.serves(Resource::Client)).find_map(|listener| match &listener.bind {
        Bind::Tcp { port, addresses, tls } if !tls || config.workers.replication_ca.is_some() => {
            let address =
                addresses.iter().map(String::as_str).find(|a| !matches!(*a, "::" | "0.0.0.0")).unwrap_or("127.0.0.1");
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let scheme = if *tls { "https" } else { "http" };
            Target::parse(&format!("{scheme}://{host}:{port}")).ok()
        }
        Bind::Tcp { .. } => None,
        Bind::Unix { path, .. } => Some(Target::Unix(path.clone())),
    })
}

fn read_password(args: &RegisterUser) -> Result<String, Failed> {
    let password = match (&args.password_file, &args.password) {
        (Some(path), _) => read_first_line(path)?,
        (None, Some(password)) => password.clone(),
        (None, None) => {
            let password = ask_hidden("Password: ")?;
            if std::io::stdin().is_terminal() && ask_hidden("Confirm password: ")? != password {
                return Err(failed("the passwords differ"));
            }
            password
        }
    };
    if password.is_empty() { Err(failed("the password is empty")) } else { Ok(password) }
}

fn read_first_line(path: &PathBuf) -> Result<String, Failed> {
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("can't read {}: {e}", path.display())))?;
    Ok(text.trim().to_owned())
}

fn ask(prompt: &str) -> Result<String, Failed> {
    if std::io::stdin().is_terminal() {
        eprint!("{prompt}");
        let _ = std::io::stderr().flush();
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| failed(e.to_string()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without showing what is typed.
fn ask_hidden(prompt: &str) -> Result<String, Failed> {
    let hidden = std::io::stdin().is_terminal() && echo(false);
    let answer = ask(prompt);
    if hidden {
        echo(true);
        eprintln!();
    }
    answer
}

fn echo(on: bool) -> bool {
    // SAFETY: termios is plain data that tcgetattr fills before it is used; both calls only touch it and the terminal.
    unsafe {
        let mut settings = std::mem::zeroed::<libc::termios>();
        if libc::tcgetattr(libc::STDIN_FILENO, &mut settings) != 0 {
            return false;
        }
        if on {
            settings.c_lflag |= libc::ECHO;
        } else {
            settings.c_lflag &= !libc::ECHO;
        }
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &settings) == 0
    }
}

/// `plexus hash-password`
pub fn hash_password(args: &HashPassword) -> ExitCode {
    let (rounds, pepper) = if args.config.is_empty() {
        (12, String::new())
    } else {
        match Config::password_settings(&args.config) {
            Ok(settings) => settings,
            Err(errors) => return report(&errors),
        }
    };
    let password = match &args.password {
        Some(password) => Ok(password.clone()),
        None => ask_hidden("Password: "),
    };
    let hash = password.and_then(|p| hash(&p, &pepper, rounds).map_err(failed));
    match hash {
        Ok(hash) => {
            println!("{hash}");
            ExitCode::SUCCESS
        }
        Err((code, message)) => {
            eprintln!("{message}");
            code
        }
    }
}

/// The hash as Synapse stores it: NFKC, pepper, the first 72 bytes, bcrypt.
fn hash(password: &str, pepper: &str, rounds: u32) -> Result<String, String> {
    if password.is_empty() {
        return Err("the password is empty".into());
    }
    let mut bytes = (password.nfkc().collect::<String>() + pepper).into_bytes();
    bytes.truncate(72);
    let salt: [u8; 16] = rand::random();
    let parts = bcrypt::hash_with_salt(&bytes, rounds, salt).map_err(|e| e.to_string())?;
    Ok(parts.format_for_version(bcrypt::Version::TwoB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_those_of_synapse() {
        // hmac.new(b"shared", b"nonce\0alice\0pw\0notadmin", "sha1").hexdigest() and with admin and a type
        let mut user = NewUser { name: "alice", password: "pw", admin: false, user_type: None };
        assert_eq!(mac("shared", "nonce", &user).as_deref(), Ok("3605384e9ad23cb04ca1385d78f9280327d500d8"));
        user.admin = true;
        user.user_type = Some("bot");
        assert_eq!(mac("shared", "nonce", &user).as_deref(), Ok("1e1d491f28fe569835e8e09f8d172122ce519180"));
    }

    #[test]
    fn hashes_verify() {
        let hash = hash("pässword", "pepper", 4).expect("hash");
        assert!(hash.starts_with("$2b$04$"));
        assert_eq!(bcrypt::verify("pässwordpepper", &hash).ok(), Some(true));
        assert_eq!(bcrypt::verify("pässword", &hash).ok(), Some(false));
    }
}

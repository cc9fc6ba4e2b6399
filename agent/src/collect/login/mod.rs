//! Ways of logging in. With nothing configured, the agent is on the server's own host: it may come through the Unix socket as the very user that the server
//! runs as, whom most servers know without a password.

mod account;
mod identity;
mod labels;
mod pgpass;
pub(super) mod remedy;
mod socket;
mod tls;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use tokio::net::UnixStream;
use tokio_postgres::{NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::identity::{Identity, run_as};
use super::{
    config::{Config, Tls, TlsMode, User},
    failure::Failure,
    mysql, postgres,
    session::{Client, Connections, Session},
};
use crate::model::{Asked, Attempt, Engine, Instance, Listen, Secret, Verdict};

/// Database that every PostgreSQL server has unless somebody dropped it.
const POSTGRES_DATABASE: &str = "postgres";

/// One way of logging in to one server.
#[derive(Clone, Debug)]
pub(super) struct Way {
    engine: Engine,
    user: String,
    password: Option<Secret>,
    database: Option<String>,
    place: Place,
    /// As whom the operating system sees the connection, if not as the agent.
    identity: Option<Identity>,
    tls: Tls,
}

/// Where to connect to.
#[derive(Clone, Debug)]
enum Place {
    /// A path within a root directory, e.g. `/proc/4711/root`.
    Socket {
        root: PathBuf,
        path: PathBuf,
    },
    Tcp {
        host: String,
        port: u16,
    },
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Socket { path, .. } => write!(f, "unix socket {} as {}", path.display(), self.user)?,
            Place::Tcp { host, port } => write!(f, "tcp {host}:{port} as {}", self.user)?,
        }
        match self.identity {
            Some(identity) => write!(f, " (operating-system user {})", identity.uid),
            None => Ok(()),
        }
    }
}

/// The ways to try for `instance`, best first, and what cannot be tried at all.
///
/// A configured user comes first: whoever made one wants the agent to be that, and no more.
pub(super) fn ways(config: &Config, instance: &Instance, proc_root: &Path) -> (Vec<Way>, Vec<Attempt>) {
    let none = |way: &str, why: &str| Attempt { way: way.to_owned(), verdict: Verdict::NotApplicable(why.to_owned()) };
    if let Some(pooler) = instance.pooler {
        return (Vec::new(), vec![none(pooler.name(), "it stands in front of servers, which are asked themselves")]);
    }
    let root = proc_root.join(instance.key.pid.to_string()).join("root");
    let (mut ways, mut attempts) = (Vec::new(), Vec::new());
    match labels::user_for(&config.users, instance) {
        Some(user) => match configured(user, instance, &root) {
            Ok(way) => ways.push(way),
            Err(verdict) => attempts.push(Attempt { way: format!("configured user {}", user.name), verdict }),
        },
        None if config.own_account => {
            ways.extend(own_account(instance, &root, proc_root));
            if ways.is_empty() {
                attempts.push(none("unix socket", "the server listens on none that has a path"));
            }
            attempts.push(none("configured user", "no entry of `collect.users` matches this server"));
        }
        None => attempts.push(none(
            "configured user",
            "no entry of `collect.users` matches this server, and `collect.own_account` is off",
        )),
    }
    (ways, attempts)
}

fn sockets(instance: &Instance) -> impl Iterator<Item = &PathBuf> {
    instance.listen.iter().filter_map(|listen| match listen {
        // An abstract name belongs to the server's network namespace, which the agent does not enter.
        Listen::Unix(path) if path.is_absolute() => Some(path),
        _ => None,
    })
}

/// As the accounts that a server's own user, or root, has on most servers.
fn own_account(instance: &Instance, root: &Path, proc_root: &Path) -> Vec<Way> {
    let gid = account::group_of(proc_root, instance.key.pid).unwrap_or(instance.uid);
    let server = Some(Identity { uid: instance.uid, gid });
    let name = account::name_of(root, instance.uid);
    let mut accounts: Vec<(String, Option<Identity>)> = Vec::new();
    match instance.engine {
        Engine::Postgresql => {
            accounts.extend(name.map(|name| (name, server)));
            // The bootstrap superuser of nearly every server: with `trust` the name is all that counts.
            accounts.push((POSTGRES_DATABASE.to_owned(), server));
        }
        Engine::Mysql | Engine::Mariadb => {
            if Identity::own_uid() == 0 {
                accounts.push(("root".to_owned(), None));
            }
            // MariaDB's installation makes an account for its operating-system user, too.
            accounts.extend(name.filter(|_| instance.engine == Engine::Mariadb).map(|name| (name, server)));
        }
    }
    accounts.dedup_by(|(one, _), (other, _)| one == other);
    let way = |path: &PathBuf, (user, identity): &(String, Option<Identity>)| Way {
        engine: instance.engine,
        user: user.clone(),
        password: None,
        database: (instance.engine == Engine::Postgresql).then(|| POSTGRES_DATABASE.to_owned()),
        place: Place::Socket { root: root.to_owned(), path: path.clone() },
        identity: *identity,
        tls: Tls::default(),
    };
    // Several sockets lead to the same server and the same answer.
    sockets(instance).take(1).flat_map(|path| accounts.iter().map(move |account| way(path, account))).collect()
}

/// As a configured user.
fn configured(user: &User, instance: &Instance, root: &Path) -> Result<Way, Verdict> {
    let socket = sockets(instance).next().filter(|_| user.host.is_none() && user.port.is_none());
    let port = user.port.or_else(|| labels::ports(instance).next());
    let place = match (socket, port) {
        (Some(path), _) => Place::Socket { root: root.to_owned(), path: path.clone() },
        (None, Some(port)) => {
            let listening = instance.listen.iter().find_map(|listen| match listen {
                Listen::Tcp(address) if !address.ip().is_unspecified() => Some(address.ip().to_string()),
                _ => None,
            });
            let host = user.host.clone().or(listening).unwrap_or_else(|| "127.0.0.1".to_owned());
            Place::Tcp { host, port }
        }
        (None, None) => {
            let reason = "the server listens on nothing that can be connected to; set `host` and `port`";
            return Err(Verdict::Unsupported(reason.to_owned()));
        }
    };
    let postgres = instance.engine == Engine::Postgresql;
    let database = user.database.clone().or_else(|| postgres.then(|| POSTGRES_DATABASE.to_owned()));
    let mut password = user.password.clone();
    if password.is_none() && postgres {
        let host = match &place {
            Place::Socket { .. } => "localhost",
            Place::Tcp { host, .. } => host,
        };
        let target = pgpass::Target {
            host,
            port: port.unwrap_or(5432),
            database: database.as_deref().unwrap_or(POSTGRES_DATABASE),
            user: &user.name,
        };
        password = pgpass::find(target).map_err(Verdict::Denied)?;
    }
    Ok(Way {
        engine: instance.engine,
        user: user.name.clone(),
        password,
        database,
        place,
        identity: None,
        tls: user.tls.clone(),
    })
}

impl Way {
    /// Connects and logs in, to another database than usual if one is named (PostgreSQL).
    pub(super) async fn dial(&self, database: Option<&str>, connections: &Connections) -> Result<Session, Failure> {
        let (way, database) = (self.clone(), database.map(str::to_owned));
        let dialling = async move {
            match way.engine {
                Engine::Postgresql => way.dial_postgres(database.as_deref()).await.map(Client::Postgres),
                Engine::Mysql | Engine::Mariadb => way.dial_mysql().await.map(|client| Client::Mysql(Box::new(client))),
            }
        };
        connections.open(dialling).await
    }

    fn password(&self) -> Option<&str> {
        self.password.as_ref().and_then(Secret::expose)
    }

    async fn dial_postgres(&self, database: Option<&str>) -> Result<postgres::Client, Failure> {
        let database = database.or(self.database.as_deref()).unwrap_or(POSTGRES_DATABASE);
        let mut config = postgres::config(&self.user, database);
        if let Some(password) = self.password() {
            config.password(password);
        }
        match &self.place {
            Place::Socket { root, path } => {
                let (root, path) = (root.clone(), path.clone());
                let stream = run_as(self.identity, move |handle| {
                    let socket = socket::Reached::find(&root, &path)?;
                    let refused = |error| Failure::fatal(Asked::Disconnected, format!("{}: {error}", path.display()));
                    handle.block_on(UnixStream::connect(socket.path())).map_err(refused)
                });
                let (client, connection) = config.connect_raw(stream.await??, NoTls).await?;
                Ok(postgres::Client::start(client, connection))
            }
            Place::Tcp { host, port } => {
                config.host(host).port(*port).ssl_mode(match self.tls.mode {
                    TlsMode::Disable => SslMode::Disable,
                    TlsMode::Prefer => SslMode::Prefer,
                    TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
                });
                let tls = tls::for_postgres(&self.tls).map_err(|reason| Failure::fatal(Asked::Failed, reason))?;
                let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
                Ok(postgres::Client::start(client, connection))
            }
        }
    }

    async fn dial_mysql(&self) -> Result<mysql::Client, Failure> {
        let mut options = mysql::options(&self.user).pass(self.password());
        options = options.db_name(self.database.as_deref());
        let connection = match &self.place {
            Place::Socket { root, path } => {
                let (root, path) = (root.clone(), path.clone());
                let connecting = run_as(self.identity, move |handle| {
                    let socket = socket::Reached::find(&root, &path)?;
                    let options = options.socket(Some(socket.path().display().to_string()));
                    handle.block_on(mysql_async::Conn::new(options)).map_err(Failure::from)
                });
                connecting.await??
            }
            Place::Tcp { host, port } => {
                let options = options.ip_or_hostname(host.clone()).tcp_port(*port);
                let tls = tls::for_mysql(&self.tls).map_err(|reason| Failure::fatal(Asked::Failed, reason))?;
                match mysql_async::Conn::new(options.clone().ssl_opts(tls)).await {
                    Err(mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer))
                        if self.tls.mode == TlsMode::Prefer =>
                    {
                        mysql_async::Conn::new(options).await?
                    }
                    connected => connected?,
                }
            }
        };
        mysql::Client::start(connection, self.engine).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect::config::Labels, model::testing};

    fn described(config: &Config, instance: &Instance) -> Vec<String> {
        ways(config, instance, Path::new("/nowhere")).0.iter().map(Way::to_string).collect()
    }

    #[test]
    fn with_nothing_configured_the_unix_socket_leads_in() {
        let server = testing::server().instance;
        let socket = "unix socket /run/postgresql/.s.PGSQL.5432 as postgres (operating-system user 105)";
        assert_eq!(described(&Config::default(), &server), [socket]);
    }

    #[test]
    fn a_configured_user_is_all_that_is_tried() {
        let server = testing::server().instance;
        let user = User { name: "monitor".into(), port: Some(5432), ..User::default() };
        let config = Config { users: vec![user], ..Config::default() };
        assert_eq!(described(&config, &server), ["tcp 127.0.0.1:5432 as monitor"]);
        let other = User { labels: Labels { port: Some(1), ..Labels::default() }, ..User::default() };
        let config = Config { users: vec![other], own_account: false, ..Config::default() };
        let (ways, attempts) = ways(&config, &server, Path::new("/nowhere"));
        assert!(ways.is_empty() && attempts[0].verdict.reason().contains("own_account"), "{attempts:?}");
    }

    #[test]
    fn passwords_are_not_shown() {
        let server = testing::server().instance;
        let password = Some(Secret::from_value("hunter2"));
        let config = Config { users: vec![User { password, ..User::default() }], ..Config::default() };
        let (ways, _) = ways(&config, &server, Path::new("/nowhere"));
        assert_eq!(ways.len(), 1);
        assert!(!format!("{ways:?} {config:?}").contains("hunter2"));
    }
}

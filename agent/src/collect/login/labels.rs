//! Which configured user is for which server.

use crate::{
    collect::config::{EngineName, Labels, User},
    model::{Engine, Instance, Listen},
};

/// The first user whose labels all fit.
pub(super) fn user_for<'a>(users: &'a [User], instance: &Instance) -> Option<&'a User> {
    users.iter().find(|user| fits(&user.labels, instance))
}

fn fits(labels: &Labels, instance: &Instance) -> bool {
    let Labels { engine, port, container, data_directory } = labels;
    let engine = engine.is_none_or(|engine| {
        let own = match instance.engine {
            Engine::Postgresql => EngineName::Postgresql,
            Engine::Mysql => EngineName::Mysql,
            Engine::Mariadb => EngineName::Mariadb,
        };
        engine == own
    });
    let port = port.is_none_or(|port| ports(instance).any(|own| own == port));
    let container = container.as_ref().is_none_or(|label| {
        let own = instance.container.as_ref();
        own.is_some_and(|own| {
            let begins = |name: &Option<String>| name.as_ref().is_some_and(|name| name.starts_with(label.as_str()));
            begins(&own.id) || begins(&own.pod_uid) || own.runtime == *label
        })
    });
    let directory = data_directory.as_ref().is_none_or(|directory| instance.data_dir.as_ref() == Some(directory));
    engine && port && container && directory
}

/// TCP ports, then the numbers of PostgreSQL's Unix sockets.
pub(super) fn ports(instance: &Instance) -> impl Iterator<Item = u16> {
    let tcp = instance.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    let unix = instance.listen.iter().filter_map(|listen| match listen {
        Listen::Unix(path) => path.file_name()?.to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok(),
        Listen::Tcp(_) => None,
    });
    tcp.chain(unix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing;

    fn labelled(labels: Labels) -> User {
        User { labels, ..User::default() }
    }

    #[test]
    fn every_given_label_must_fit() {
        // postgresql:5432 with data in /var/lib/postgresql/15/main, outside of any container.
        let server = testing::server().instance;
        let fitting = [
            Labels::default(),
            Labels { engine: Some(EngineName::Postgresql), port: Some(5432), ..Labels::default() },
            Labels { data_directory: Some("/var/lib/postgresql/15/main".into()), ..Labels::default() },
        ];
        for labels in fitting {
            assert!(user_for(&[labelled(labels.clone())], &server).is_some(), "{labels:?}");
        }
        let others = [
            Labels { engine: Some(EngineName::Mariadb), ..Labels::default() },
            Labels { engine: Some(EngineName::Postgresql), port: Some(5433), ..Labels::default() },
            Labels { container: Some("c0ffee".into()), ..Labels::default() },
            Labels { data_directory: Some("/var/lib/postgresql/15".into()), ..Labels::default() },
        ];
        for labels in others {
            assert!(user_for(&[labelled(labels.clone())], &server).is_none(), "{labels:?}");
        }
    }

    #[test]
    fn the_first_user_that_fits_is_taken() {
        let named = |name: &str, port| User { name: name.into(), ..labelled(Labels { port, ..Labels::default() }) };
        let users = [named("a", Some(1)), named("b", Some(5432)), named("c", None)];
        assert_eq!(user_for(&users, &testing::server().instance).map(|user| user.name.as_str()), Some("b"));
    }
}

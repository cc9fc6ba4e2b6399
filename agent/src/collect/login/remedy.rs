//! What an administrator can run so that the agent may ask more.

use crate::{
    collect::facts::{Facts, Grant},
    model::Engine,
};

/// Statements that make a monitoring user, where the agent could not log in at all. The password is the administrator's to choose.
pub(in crate::collect) fn monitoring_user(engine: Engine) -> Vec<String> {
    let statements: &[&str] = match engine {
        Engine::Postgresql => &[
            "CREATE ROLE querylens LOGIN PASSWORD '<password>' CONNECTION LIMIT 2",
            "GRANT pg_monitor TO querylens",
            "CREATE EXTENSION IF NOT EXISTS pg_stat_statements",
        ],
        Engine::Mysql => &[
            "CREATE USER 'querylens'@'localhost' IDENTIFIED BY '<password>' WITH MAX_USER_CONNECTIONS 2",
            "GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'querylens'@'localhost'",
            "GRANT SELECT ON performance_schema.* TO 'querylens'@'localhost'",
        ],
        Engine::Mariadb => &[
            "CREATE USER 'querylens'@'localhost' IDENTIFIED BY '<password>' WITH MAX_USER_CONNECTIONS 2",
            "GRANT PROCESS, REPLICA MONITOR ON *.* TO 'querylens'@'localhost'",
            "GRANT SELECT ON performance_schema.* TO 'querylens'@'localhost'",
        ],
    };
    statements.iter().map(|statement| (*statement).to_owned()).collect()
}

/// Statements that grant what the account lacks; none if it lacks nothing.
pub(in crate::collect) fn grants(facts: &Facts) -> Vec<String> {
    let account = &facts.account;
    let lacks = |grant: Grant| !facts.grants(grant);
    let mut statements = Vec::new();
    match facts.engine {
        Engine::Postgresql => {
            if lacks(Grant::AllStats) || lacks(Grant::AllSettings) {
                statements.push(format!("GRANT pg_monitor TO {account}"));
            }
            if !facts.extensions.contains_key("pg_stat_statements") {
                statements.push(format!(
                    "CREATE EXTENSION IF NOT EXISTS pg_stat_statements -- in database {}",
                    facts.database
                ));
            }
        }
        Engine::Mysql | Engine::Mariadb => {
            let replication = match facts.engine {
                Engine::Mariadb => "REPLICA MONITOR",
                _ => "REPLICATION CLIENT",
            };
            let lacking = [(Grant::Process, "PROCESS"), (Grant::ReplicationClient, replication)];
            let global: Vec<&str> =
                lacking.into_iter().filter(|(grant, _)| lacks(*grant)).map(|(_, name)| name).collect();
            if !global.is_empty() {
                statements.push(format!("GRANT {} ON *.* TO {account}", global.join(", ")));
            }
            if lacks(Grant::PerformanceSchema) {
                statements.push(format!("GRANT SELECT ON performance_schema.* TO {account}"));
            }
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::facts::{Extension, sample};

    #[test]
    fn exactly_what_is_missing_is_granted() {
        let mut facts = Facts { superuser: false, ..sample(Engine::Postgresql) };
        assert_eq!(grants(&facts)[0], "GRANT pg_monitor TO querylens");
        facts.grants.extend([Grant::AllStats, Grant::AllSettings]);
        facts.extensions.insert("pg_stat_statements".into(), Extension { version: 110, schema: "public".into() });
        assert!(grants(&facts).is_empty());

        let account = "'querylens'@'localhost'".to_owned();
        let mut facts = Facts { superuser: false, account, ..sample(Engine::Mysql) };
        assert_eq!(
            grants(&facts),
            [
                "GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'querylens'@'localhost'",
                "GRANT SELECT ON performance_schema.* TO 'querylens'@'localhost'",
            ]
        );
        facts.grants.extend([Grant::Process, Grant::PerformanceSchema]);
        assert_eq!(grants(&facts), ["GRANT REPLICATION CLIENT ON *.* TO 'querylens'@'localhost'"]);
    }
}

//! Guarantee: a new configuration is taken up while the agent runs, by signal, by a change of the file and over the admin socket; one that is broken or cannot be
//! started leaves the old one running; what the agent has counted goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, time::Duration};

use querylens_tests::{
    agent::{Agent, AgentOptions},
    http,
    process::wait_for,
    servers::{Postgres, PostgresOptions, free_port},
};

fn wait_for_log(agent: &Agent, text: &str) {
    let seen = wait_for(text, Duration::from_secs(15), || Ok(agent.stderr().contains(text).then_some(())));
    assert!(seen.is_ok(), "{}", agent.stderr());
}

fn admin(agent: &Agent, arguments: &[&str]) -> String {
    let socket = agent.admin_socket();
    let all = [&["admin", "--socket", socket.to_str().unwrap()], arguments].concat();
    let (status, out, err) = Agent::command(&all).unwrap();
    assert!(status.success(), "{err}");
    out
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_configuration_is_taken_up_while_the_agent_runs() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    let mut agent =
        Agent::start(AgentOptions { configuration: Some(String::new()), ..AgentOptions::default() }).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    server.client("postgres").unwrap().query("SELECT 1 AS before").unwrap();
    let file = agent.configuration();
    let text = fs::read_to_string(&file).unwrap();

    // Broken: told, and nothing changes.
    fs::write(&file, format!("{text}\nexport: {{ prometeus: {{}} }}\n")).unwrap();
    agent.process().signal(libc::SIGHUP);
    wait_for_log(&agent, "export.prometeus: unknown key (did you mean `prometheus`?)");
    assert_eq!(http::get(agent.address(), "/metrics").unwrap().0, 200);

    // It cannot be started: told, and the old one runs again.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(&file, format!("health:\n  listen: {}\n", taken.local_addr().unwrap())).unwrap();
    wait_for_log(&agent, "the new configuration cannot be taken up, the old one stays in effect: cannot listen on");
    wait_for("the old address", Duration::from_secs(10), || {
        Ok(http::get(agent.address(), "/metrics").is_ok_and(|(code, _)| code == 200).then_some(()))
    })
    .unwrap();

    // Good: over the admin socket.
    let moved = format!("127.0.0.1:{}", free_port().unwrap());
    fs::write(
        &file,
        format!("health:\n  listen: {moved}\nprocessors: {{ adaptive_sampler: {{ max_records_per_second: 77 }} }}\n"),
    )
    .unwrap();
    admin(&agent, &["reload"]);
    let moved = moved.parse().unwrap();
    let body = wait_for("the new address", Duration::from_secs(15), || {
        Ok(http::get(moved, "/metrics").ok().filter(|(code, _)| *code == 200))
    });
    let (_, body) = body.unwrap();
    assert!(body.contains("SELECT ? AS before"), "what was counted before is there:\n{body}");
    assert!(http::get(agent.address(), "/metrics").is_err());
    let config = admin(&agent, &["config"]);
    assert!(config.contains("max_records_per_second: 77") && config.contains("querylens.yaml:3"), "{config}");
    assert!(admin(&agent, &["processors"]).contains("querylens.processor.records"));
    let id = "00000000-0000-0000-0000-000000000007";
    assert!(admin(&agent, &["open", id]).contains("\"open\""));
    assert!(admin(&agent, &["close", id]).contains("\"closed\""));
}

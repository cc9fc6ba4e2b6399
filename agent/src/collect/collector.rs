//! Asks one server its questions, each when it is due, and publishes the answers.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    activity,
    budget::Budget,
    config::Config,
    facts::Facts,
    failure::Failure,
    gate::{Gate, Held},
    history::History,
    kernel::Tasks,
    ladder::{Fallen, Rung, WIRE_ONLY, climb},
    login::{self, Way, remedy},
    mysql,
    own::OwnStatements,
    points::Points,
    postgres::{self, tables::Tables},
    samples::Samples,
    schedule::{Backoff, Schedule},
    session::{Connections, MAX_CONNECTIONS, Session},
    settings::Settings,
    statements::Statements,
};
use crate::model::{Asked, Attempt, Collected, Engine, Instance, Question, Standing, Verdict};

/// How often the facts are read again: an extension may have been created, a privilege granted.
const FACTS_INTERVAL: Duration = Duration::from_secs(300);
/// How often the waits of the last hour are summed up.
const SHARES_INTERVAL: Duration = Duration::from_secs(10);
/// How long the agent waits for connections that gave no answer to end before it looks again.
const NO_PLACE_PAUSE: Duration = Duration::from_secs(5);
/// After so long a connection, a lost one is made again soon.
const STABLE: Duration = Duration::from_secs(60);

/// Asks one server.
pub struct Collector {
    instance: Arc<Instance>,
    config: Arc<Config>,
    proc_root: PathBuf,
    gate: Arc<dyn Gate>,
    published: watch::Sender<Collected>,
    own: OwnStatements,
    statements: Statements,
    history: History,
    samples: Samples,
    settings: Settings,
    tables: Tables,
    fallen: Fallen,
    /// What the questions cost the server.
    budgets: BTreeMap<Question, Budget>,
    /// The server's processes or threads; `None` until the first login, and where they cannot be seen.
    tasks: Option<Tasks>,
    connections: Connections,
    started: Instant,
    /// When the waits were last summed up.
    shared: Option<Instant>,
    /// A database that has more to tell than the usual one.
    database: Option<Arc<str>>,
}

/// Why a connection is not used any more.
enum End {
    /// It broke.
    Lost(Failure),
    /// Another database has more to tell.
    Elsewhere,
    /// Nobody reads the answers any more.
    Unread,
}

impl Collector {
    /// For `instance`, and where its answers are published. `proc_root` is where the host's procfs is mounted.
    pub fn new(
        instance: Arc<Instance>,
        config: Arc<Config>,
        proc_root: PathBuf,
        gate: Arc<dyn Gate>,
    ) -> (Collector, watch::Receiver<Collected>) {
        let mut own = OwnStatements::new(instance.engine);
        if instance.engine != Engine::Postgresql {
            mysql::preparations(instance.engine).iter().for_each(|statement| own.add(statement));
        }
        let known = Collected { own: Arc::clone(own.fingerprints()), ..Collected::default() };
        let (published, receiver) = watch::channel(known);
        let collector = Collector {
            own,
            statements: Statements::new(instance.engine, config.max_statements),
            history: History::default(),
            samples: Samples::new(config.max_statements),
            settings: Settings::default(),
            tables: Tables::default(),
            fallen: Fallen::default(),
            budgets: BTreeMap::new(),
            tasks: None,
            connections: Connections::new(),
            started: Instant::now(),
            shared: None,
            database: None,
            instance,
            config,
            proc_root,
            gate,
            published,
        };
        (collector, receiver)
    }

    /// Runs until it is dropped, or nobody reads what it publishes.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let login = self.log_in().await;
            // What the gate holds back is no attempt that failed.
            let held = login.as_ref().err().and_then(|held| held.as_ref()).map(|held| held.pause);
            if let Ok((way, mut session)) = login {
                let began = Instant::now();
                info!(server = %self.instance.label(), %way, "logged in");
                let end = self.watch(&way, &mut session).await;
                // The connection ends before another one is made.
                session.end().await;
                self.published.send_modify(|collected| collected.login = None);
                match end {
                    End::Unread => return,
                    End::Elsewhere => continue,
                    End::Lost(failure) => {
                        warn!(server = %self.instance.label(), reason = %failure.reason, "connection lost");
                    }
                }
                if began.elapsed() >= STABLE {
                    backoff = Backoff::new();
                }
            }
            if self.published.is_closed() {
                return;
            }
            sleep(held.unwrap_or_else(|| backoff.pause(fastrand::f64()))).await;
        }
    }

    /// Logs in once and tells where each question would stand.
    pub async fn explain(mut self) -> Collected {
        if let Ok((_, mut session)) = self.log_in().await
            && let Err(failure) = self.read_facts(&mut session).await
        {
            debug!(reason = %failure.reason, "the facts could not be read");
        }
        self.published.borrow().clone()
    }

    /// Tries the ways of logging in, one after the other; `Err` with what held the agent back from trying, if something did.
    async fn log_in(&mut self) -> Result<(Way, Session), Option<Held>> {
        let (ways, mut attempts) = login::ways(&self.config, &self.instance, &self.proc_root);
        let (mut found, mut held_back) = (None, None);
        for way in ways {
            let attempt = |verdict| Attempt { way: way.to_string(), verdict };
            if let Err(held) = self.admit_login() {
                attempts.push(attempt(Verdict::Broken(format!("not tried: {}", held.why))));
                held_back = Some(held);
                break;
            }
            let began = Instant::now();
            let dialled = way.dial(self.database.as_deref(), &self.connections).await;
            let asked = dialled.as_ref().map_or_else(|failure| failure.asked, |_| Asked::Answered);
            self.done(Question::Facts, asked, began.elapsed(), Duration::ZERO);
            match dialled {
                Ok(session) => {
                    attempts.push(attempt(Verdict::Ok));
                    found = Some((way, session));
                    break;
                }
                Err(failure) => attempts.push(attempt(failure.verdict())),
            }
        }
        if let Some(Attempt { way, verdict }) = attempts.iter().find(|attempt| !attempt.verdict.is_ok()) {
            debug!(server = %self.instance.label(), way, reason = verdict.reason(), "no login");
        }
        let way = found.as_ref().map(|(way, _)| way.to_string().into());
        let remedy = match (&way, self.instance.pooler) {
            (None, None) => remedy::monitoring_user(self.instance.engine),
            _ => Vec::new(),
        };
        let standings = if found.is_none() { self.without_login() } else { Arc::default() };
        self.published.send_modify(|collected| {
            collected.attempts = attempts.into();
            collected.remedy = remedy.into();
            if way.is_none() {
                collected.standings = standings;
            }
            collected.login = way;
        });
        found.ok_or(held_back)
    }

    /// Asks what is due until the connection is of no use any more.
    async fn watch(&mut self, way: &Way, session: &mut Session) -> End {
        let mut facts = match self.read_facts(session).await {
            Ok(facts) => facts,
            Err(failure) => return End::Lost(failure),
        };
        self.tasks = Tasks::of(&self.proc_root, self.instance.engine, self.instance.key.pid);
        let config = &self.config;
        let questions = [
            (Question::Activity, config.activity_interval.0),
            (Question::Statements, config.statements_interval.0),
            (Question::Server, config.server_interval.0),
            (Question::Replication, config.server_interval.0),
            (Question::Settings, config.settings_interval.0),
            (Question::Tables, config.tables_interval.0),
            (Question::Facts, FACTS_INTERVAL),
        ];
        let mut schedule = Schedule::new(questions, Instant::now());
        schedule.done(Question::Facts, Instant::now(), fastrand::f64());
        while let Some((question, due)) = schedule.next() {
            sleep_until(due.into()).await;
            if self.published.is_closed() {
                return End::Unread;
            }
            match question {
                Question::Facts => match self.read_facts(session).await {
                    Ok(new) => facts = new,
                    Err(failure) if failure.fatal => return End::Lost(failure),
                    Err(_) => {}
                },
                question => match self.turn(question, way, session, &facts).await {
                    Ok(Some(end)) => return end,
                    Ok(None) => {}
                    Err(failure) => return End::Lost(failure),
                },
            }
            schedule.done(question, Instant::now(), fastrand::f64());
        }
        End::Unread
    }

    /// Reads the facts, and climbs all ladders anew.
    async fn read_facts(&mut self, session: &mut Session) -> Result<Facts, Failure> {
        if let Err(held) = self.admit(Question::Facts) {
            return Err(Failure { asked: Asked::Failed, reason: format!("not asked: {}", held.why), fatal: false });
        }
        let began = Instant::now();
        let asked = match self.instance.engine {
            Engine::Postgresql => postgres::facts::ask(session, &mut self.own).await,
            engine => mysql::facts::ask(session, &mut self.own, engine).await,
        };
        let outcome = asked.as_ref().map_or_else(|failure| failure.asked, |_| Asked::Answered);
        self.done(Question::Facts, outcome, began.elapsed(), Duration::ZERO);
        let facts = asked?;
        self.fallen.clear();
        self.publish_standings(&facts);
        let remedy = remedy::grants(&facts).into();
        self.published.send_modify(|collected| collected.remedy = remedy);
        Ok(facts)
    }

    fn rungs(&self, question: Question) -> &'static [Rung] {
        match self.instance.engine {
            Engine::Postgresql => postgres::rungs(question),
            Engine::Mysql | Engine::Mariadb => mysql::rungs(question),
        }
    }

    fn publish_standings(&self, facts: &Facts) {
        let questions = Question::ALL.into_iter().filter(|question| *question != Question::Facts);
        let standings = questions.map(|question| self.standing(question, facts)).collect();
        self.published.send_modify(|collected| collected.standings = standings);
    }

    /// Where all questions stand while nobody is logged in.
    fn without_login(&self) -> Arc<[Standing]> {
        let questions = Question::ALL.into_iter().filter(|question| *question != Question::Facts);
        let unmet = |rung: &Rung| (rung.name, Verdict::Denied("needs a login".to_owned()));
        questions
            .map(|question| Standing {
                question,
                rung: WIRE_ONLY,
                above: self.rungs(question).iter().map(unmet).collect(),
            })
            .collect()
    }

    fn admit(&self, question: Question) -> Result<(), Held> {
        self.gate.admit(&self.instance, question).inspect_err(|held| {
            self.published.send_modify(|collected| {
                let tally = collected.tallies.entry(question).or_default();
                tally.held += 1;
                tally.why_held = Some(held.why.as_str().into());
            });
        })
    }

    /// Whether a connection may be made: none of those before may still be waiting for an answer if it is the last one.
    fn admit_login(&self) -> Result<(), Held> {
        if self.connections.free() == 0 {
            let why = format!("{MAX_CONNECTIONS} connections that gave no answer have not ended yet");
            return Err(Held { pause: NO_PLACE_PAUSE, why });
        }
        self.admit(Question::Facts)
    }

    /// A question that was admitted has ended after `took`, and cost the server `cpu`.
    fn done(&self, question: Question, asked: Asked, took: Duration, cpu: Duration) {
        self.gate.done(&self.instance, question, asked, took);
        self.published.send_modify(|collected| {
            let tally = collected.tallies.entry(question).or_default();
            tally.asked += 1;
            tally.failed += u64::from(!asked.is_answered());
            tally.last = Some(asked);
            tally.why_held = None;
            tally.cpu = tally.cpu.saturating_add(cpu);
            tally.time = tally.time.saturating_add(took);
            if !Arc::ptr_eq(&collected.own, self.own.fingerprints()) {
                collected.own = Arc::clone(self.own.fingerprints());
            }
        });
    }

    /// Asks one question, if it may be asked. `Err` is a lost connection.
    async fn turn(
        &mut self,
        question: Question,
        way: &Way,
        session: &mut Session,
        facts: &Facts,
    ) -> Result<Option<End>, Failure> {
        if self.standing(question, facts).rung == WIRE_ONLY || self.admit(question).is_err() {
            self.forget(question);
            return Ok(None);
        }
        let (began, before) = (Instant::now(), self.own_cpu(facts));
        let answer = self.ask_down(question, way, session, facts).await;
        let own = self.own_cpu(facts).zip(before).map(|(after, before)| after.saturating_sub(before));
        let cpu = own.unwrap_or_default() + self.tables.take_cpu();
        let budget = self.budgets.entry(question).or_insert_with(|| Budget::new(began));
        let exceeded = budget.spend(Instant::now(), cpu, self.config.max_cpu_percent / 100.0);
        let asked = match &answer {
            Ok(_) if exceeded => Asked::TooCostly,
            Ok(_) => Asked::Answered,
            Err(failure) => failure.asked,
        };
        self.done(question, asked, began.elapsed(), cpu);
        match answer {
            Err(failure) if !failure.fatal => {
                debug!(server = %self.instance.label(), question = question.name(), reason = %failure.reason, "no answer");
                self.forget(question);
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Asks from the highest rung that holds. One that does not hold though its needs are met is left for the next, until the facts are read again.
    async fn ask_down(
        &mut self,
        question: Question,
        way: &Way,
        session: &mut Session,
        facts: &Facts,
    ) -> Result<Option<End>, Failure> {
        loop {
            let standing = self.standing(question, facts);
            match self.ask(question, standing.rung, way, session, facts).await {
                Err(failure) if !failure.fatal && matches!(failure.asked, Asked::Missing | Asked::Denied) => {
                    self.fallen.add(question, standing.rung, failure.verdict());
                    self.publish_standings(facts);
                    if self.standing(question, facts).rung == WIRE_ONLY {
                        return Err(failure);
                    }
                }
                answer => return answer,
            }
        }
    }

    fn standing(&self, question: Question, facts: &Facts) -> Standing {
        climb(question, self.rungs(question), facts, &self.fallen)
    }

    /// CPU time that the agent's own session has cost the server; `None` where that cannot be read.
    fn own_cpu(&self, facts: &Facts) -> Option<Duration> {
        Some(self.tasks.as_ref()?.used(facts.task?)?.on_cpu)
    }

    /// What is not answered any more must not be shown as if it were.
    fn forget(&self, question: Question) {
        self.published.send_if_modified(|collected| {
            let points = collected.points.remove(&question).is_some();
            let sessions = question == Question::Activity && !collected.activity.sessions.is_empty();
            if sessions {
                collected.activity = Arc::default();
            }
            points || sessions
        });
    }

    async fn ask(
        &mut self,
        question: Question,
        rung: &'static str,
        way: &Way,
        session: &mut Session,
        facts: &Facts,
    ) -> Result<Option<End>, Failure> {
        let postgres = self.instance.engine == Engine::Postgresql;
        match question {
            Question::Facts => {}
            Question::Activity => self.ask_activity(rung, session, facts).await?,
            Question::Statements => self.ask_statements(session, facts).await?,
            Question::Server => {
                let points = match postgres {
                    true => postgres::server::ask(session, &mut self.own, facts, rung).await?,
                    false => mysql::server::ask(session, &mut self.own).await?,
                };
                self.publish(question, points);
            }
            Question::Replication => {
                let points = match postgres {
                    true => postgres::replication::ask(session, &mut self.own, facts, rung).await?,
                    false => mysql::replication::ask(session, &mut self.own, facts).await?,
                };
                self.publish(question, points);
            }
            Question::Settings => {
                let (sql, names) = match postgres {
                    true => (postgres::SETTINGS, "name"),
                    false => (mysql::SETTINGS, "variable_name"),
                };
                let rows = session.ask(&mut self.own, sql).await?;
                self.settings.look(&rows, names, SystemTime::now())?;
                let changes = self.settings.changes().cloned().collect();
                self.published.send_modify(|collected| collected.changes = changes);
            }
            Question::Tables => return self.ask_tables(way, session, facts).await,
        }
        Ok(None)
    }

    async fn ask_tables(&mut self, way: &Way, session: &mut Session, facts: &Facts) -> Result<Option<End>, Failure> {
        let limit = self.config.max_tables;
        if self.instance.engine != Engine::Postgresql {
            let points = mysql::tables::ask(session, &mut self.own, limit).await?;
            self.publish(Question::Tables, points);
            return Ok(None);
        }
        // Each other database takes a connection of its own.
        let elsewhere = (way, &self.connections);
        let tasks = self.tasks.as_ref();
        self.tables.ask(session, &mut self.own, elsewhere, &facts.database, limit, tasks).await?;
        self.publish(Question::Tables, self.tables.points());
        self.lost("databases_left_out", self.tables.left_out());
        if self.database.is_none() && !facts.extensions.contains_key("pg_stat_statements") {
            // The extension counts for the whole server, but is asked for where it was created.
            self.database = self.tables.with_statements().cloned();
            return Ok(self.database.is_some().then_some(End::Elsewhere));
        }
        Ok(None)
    }

    async fn ask_activity(&mut self, rung: &str, session: &mut Session, facts: &Facts) -> Result<(), Failure> {
        let (seen, waiters) = match self.instance.engine {
            Engine::Postgresql => postgres::activity::ask(session, &mut self.own, facts).await?,
            _ => mysql::activity::ask(session, &mut self.own, facts, rung).await?,
        };
        let interval = self.config.activity_interval.0;
        activity::record(&seen, &mut self.history, self.started.elapsed());
        self.samples.look(&seen, interval, |task| self.tasks.as_ref()?.used(task));
        let waits = if self.shared.is_none_or(|at| at.elapsed() >= SHARES_INTERVAL) {
            self.shared = Some(Instant::now());
            let digest = |id: &str| self.statements.digest(id).cloned();
            let known = self.samples.known(digest);
            self.published.send_modify(|collected| collected.seen = known);
            activity::shares(&self.history, interval, digest)
        } else {
            Arc::clone(&self.published.borrow().activity.waits)
        };
        let activity = Arc::new(activity::sum_up(&seen, waiters, waits, |id| self.statements.digest(id).cloned()));
        self.published.send_modify(|collected| collected.activity = activity);
        self.lost("waits_folded", self.history.folded());
        self.lost("samples_omitted", self.samples.omitted());
        Ok(())
    }

    async fn ask_statements(&mut self, session: &mut Session, facts: &Facts) -> Result<(), Failure> {
        match self.instance.engine {
            Engine::Postgresql => {
                postgres::statements::ask(session, &mut self.own, facts, &mut self.statements).await?;
            }
            _ => {
                let without = mysql::statements::ask(session, &mut self.own, facts, &mut self.statements).await?;
                self.lost("statements_without_digest", without);
            }
        }
        let statements = self.statements.known(&self.own).into();
        self.published.send_modify(|collected| collected.statements = statements);
        self.lost("statements_omitted", self.statements.omitted());
        Ok(())
    }

    fn publish(&self, question: Question, points: Points) {
        let points = points.into_vec().into();
        self.published.send_modify(|collected| drop(collected.points.insert(question, points)));
    }

    /// Tells how much was left out so far, for a cause.
    fn lost(&self, cause: &'static str, count: u64) {
        self.published.send_if_modified(|collected| collected.losses.insert(cause, count) != Some(count));
    }
}

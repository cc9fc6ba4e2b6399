//! The settings of the extension, `pg_querylens.*`. All but the sizes of memory can be changed without a restart.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// Which statements are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub(crate) enum Track {
    /// None.
    #[name = c"none"]
    None,
    /// Those that clients sent.
    #[name = c"top"]
    Top,
    /// Those within functions, procedures and triggers too.
    #[name = c"all"]
    All,
}

/// Whether anything is counted.
pub(crate) static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Which statements are followed.
pub(crate) static TRACK: GucSetting<Track> = GucSetting::<Track>::new(Track::All);
/// Whether statements without a plan are followed.
pub(crate) static TRACK_UTILITY: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Whether the planner is timed.
pub(crate) static TRACK_PLANNING: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Plans of statements for which there is memory.
static MAX_PLANS: GucSetting<i32> = GucSetting::<i32>::new(5_000);
/// Changes of plans for which there is memory.
static HISTORY_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1_000);
/// Memory for texts of plans, in kB.
static TEXT_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(8_192);
/// Shortest execution of which the plan's text is kept, in milliseconds.
pub(crate) static PLAN_CAPTURE_THRESHOLD: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Longest text of a plan, in bytes.
static MAX_PLAN_LENGTH: GucSetting<i32> = GucSetting::<i32>::new(10_000);
/// Share of executions whose nodes are counted.
pub(crate) static SAMPLE_RATE: GucSetting<f64> = GucSetting::<f64>::new(0.01);
/// Share of the sampled executions whose nodes are timed.
pub(crate) static SAMPLE_TIMING: GucSetting<f64> = GucSetting::<f64>::new(0.1);
/// Share of a process's time that sampling may cost.
pub(crate) static SAMPLE_BUDGET: GucSetting<f64> = GucSetting::<f64>::new(0.005);
/// Whether statistics survive a restart.
pub(crate) static SAVE: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Plans of statements for which there is memory.
pub(crate) fn max_plans() -> usize {
    size(&MAX_PLANS)
}

/// Changes of plans for which there is memory.
pub(crate) fn history_size() -> usize {
    size(&HISTORY_SIZE)
}

/// Memory for texts of plans, in bytes.
pub(crate) fn text_memory() -> usize {
    size(&TEXT_MEMORY) * 1024
}

/// Longest text of a plan, in bytes.
pub(crate) fn max_plan_length() -> usize {
    size(&MAX_PLAN_LENGTH)
}

/// A setting that is never negative.
fn size(setting: &GucSetting<i32>) -> usize {
    usize::try_from(setting.get()).unwrap_or(0)
}

/// Who may change a setting, and when.
const RESTART: GucContext = GucContext::Postmaster;
const SUPERUSER: GucContext = GucContext::Suset;
const RELOAD: GucContext = GucContext::Sighup;

/// Tells the server of them.
pub(crate) fn define() {
    let none = GucFlags::default();
    GucRegistry::define_bool_guc(
        c"pg_querylens.enabled",
        c"Counts executions of statements and their plans.",
        c"Off, the extension costs next to nothing, and what was counted stays readable.",
        &ENABLED,
        SUPERUSER,
        none,
    );
    GucRegistry::define_enum_guc(
        c"pg_querylens.track",
        c"Which statements are followed: none, top (those that clients sent) or all (also those within functions).",
        c"",
        &TRACK,
        SUPERUSER,
        none,
    );
    GucRegistry::define_bool_guc(
        c"pg_querylens.track_utility",
        c"Follows statements that have no plan, such as CREATE TABLE.",
        c"",
        &TRACK_UTILITY,
        SUPERUSER,
        none,
    );
    GucRegistry::define_bool_guc(
        c"pg_querylens.track_planning",
        c"Measures the time that the planner takes.",
        c"",
        &TRACK_PLANNING,
        SUPERUSER,
        none,
    );
    GucRegistry::define_int_guc(
        c"pg_querylens.max_plans",
        c"Number of plans of statements for which there is memory; the least used ones make place for others.",
        c"",
        &MAX_PLANS,
        100,
        1_000_000,
        RESTART,
        none,
    );
    GucRegistry::define_int_guc(
        c"pg_querylens.history_size",
        c"Number of changes of plans that are kept.",
        c"",
        &HISTORY_SIZE,
        0,
        1_000_000,
        RESTART,
        none,
    );
    GucRegistry::define_int_guc(
        c"pg_querylens.text_memory",
        c"Memory for texts of plans; the oldest ones make place for others.",
        c"",
        &TEXT_MEMORY,
        64,
        1_048_576,
        RESTART,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_querylens.plan_capture_threshold_ms",
        c"Keeps the text of a plan once an execution has taken as long.",
        c"",
        &PLAN_CAPTURE_THRESHOLD,
        0,
        i32::MAX,
        SUPERUSER,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_querylens.max_plan_length",
        c"Longest text of a plan, in bytes; what is longer is not kept.",
        c"",
        &MAX_PLAN_LENGTH,
        100,
        1_048_576,
        SUPERUSER,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_float_guc(
        c"pg_querylens.sample_rate",
        c"Share of executions, beside the first of each plan, of which the rows of each node are counted.",
        c"",
        &SAMPLE_RATE,
        0.0,
        1.0,
        SUPERUSER,
        none,
    );
    GucRegistry::define_float_guc(
        c"pg_querylens.sample_timing",
        c"Share of the sampled executions of which each node is also timed.",
        c"",
        &SAMPLE_TIMING,
        0.0,
        1.0,
        SUPERUSER,
        none,
    );
    GucRegistry::define_float_guc(
        c"pg_querylens.sample_budget",
        c"Share of a session's time that sampling may take; beyond it, nothing is sampled.",
        c"",
        &SAMPLE_BUDGET,
        0.0,
        1.0,
        SUPERUSER,
        none,
    );
    GucRegistry::define_bool_guc(
        c"pg_querylens.save",
        c"Keeps the statistics across restarts of the server.",
        c"",
        &SAVE,
        RELOAD,
        none,
    );
}

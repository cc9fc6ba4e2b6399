//! Whether executions have become slower: Welch's test for means of unequal variances, and what it is due to.

use statrs::function::beta::beta_reg;

use crate::{
    keys::{PlanKey, StatementKey},
    rows::Sample,
    shmem::Shared,
};

/// What counts as a regression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Executions needed on both sides.
    pub(crate) calls: u64,
    /// Mean time after, divided by that before.
    pub(crate) ratio: f64,
    /// Probability that the difference is no chance.
    pub(crate) confidence: f64,
}

/// What is different now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Another plan.
    PlanChange,
    /// The same plan takes longer.
    SamePlanSlower,
    /// As many more rows as it takes longer, at least nearly.
    MoreRows,
}

impl Cause {
    /// As it is shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::PlanChange => "plan change",
            Cause::SamePlanSlower => "same plan slower",
            Cause::MoreRows => "more rows",
        }
    }
}

/// Executions are slower than before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regression {
    /// Mean time after, divided by that before.
    pub(crate) ratio: f64,
    /// Probability that the difference is no chance, one-sided.
    pub(crate) confidence: f64,
    /// What is different.
    pub(crate) cause: Cause,
}

impl Regression {
    /// By the ratio: over 3, over 2, or less.
    pub(crate) fn severity(&self) -> &'static str {
        match self.ratio {
            ratio if ratio > 3.0 => "critical",
            ratio if ratio > 2.0 => "high",
            _ => "moderate",
        }
    }
}

/// A statement that became slower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The statement.
    pub(crate) statement: StatementKey,
    /// Its plan before; the same as now, if it is not the plan.
    pub(crate) previous_plan_id: u64,
    /// Its plan now.
    pub(crate) plan_id: u64,
    /// How it did before.
    pub(crate) before: Sample,
    /// How it does now.
    pub(crate) after: Sample,
    /// Since when, in microseconds since 2000-01-01.
    pub(crate) at: i64,
    /// What is different.
    pub(crate) regression: Regression,
}

/// All statements that became slower: by their last change of plan, or with the plan that they have.
pub(crate) fn all(shared: &Shared, limits: Limits) -> Vec<Found> {
    let changed = shared.history.all().into_iter().filter_map(|change| {
        let current = shared.statements.read(&change.statement)?;
        if current.plan_id != change.plan_id {
            return None;
        }
        let key = PlanKey { statement: change.statement, plan_id: change.plan_id };
        let after = shared.plans.read(&key)?.whole();
        Some(Found {
            statement: change.statement,
            previous_plan_id: change.previous_plan_id,
            plan_id: change.plan_id,
            before: change.before,
            after,
            at: change.at,
            regression: assess(&change.before, &after, true, limits)?,
        })
    });
    let slower = shared.plans.collect(|_, row| row.earlier.execution.count > 0).into_iter().filter_map(|(key, row)| {
        Some(Found {
            statement: key.statement,
            previous_plan_id: key.plan_id,
            plan_id: key.plan_id,
            before: row.earlier,
            after: row.recent,
            at: row.recent_since,
            regression: assess(&row.earlier, &row.recent, false, limits)?,
        })
    });
    changed.chain(slower).collect()
}

/// Part of the slowdown that rows must explain to be its cause.
const EXPLAINED: f64 = 0.8;

/// Whether `after` is slower than `before`, by another plan or by the same.
pub(crate) fn assess(before: &Sample, after: &Sample, other_plan: bool, limits: Limits) -> Option<Regression> {
    let (earlier, later) = (&before.execution, &after.execution);
    if earlier.count < limits.calls.max(2) || later.count < limits.calls.max(2) || earlier.mean() <= 0.0 {
        return None;
    }
    let ratio = later.mean() / earlier.mean();
    if ratio < limits.ratio {
        return None;
    }
    let confidence = confidence(before, after);
    if confidence < limits.confidence {
        return None;
    }
    let rows = |sample: &Sample| sample.rows as f64 / sample.execution.count as f64;
    let more = rows(before) > 0.0 && rows(after) / rows(before) >= 1.0 + (ratio - 1.0) * EXPLAINED;
    let cause = match (more, other_plan) {
        (true, _) => Cause::MoreRows,
        (false, true) => Cause::PlanChange,
        (false, false) => Cause::SamePlanSlower,
    };
    Some(Regression { ratio, confidence, cause })
}

/// Probability that the mean after is greater than that before: Welch, "The Generalization of Student's Problem when Several Different Population
/// Variances are Involved" (1947), with the degrees of freedom of Satterthwaite.
fn confidence(before: &Sample, after: &Sample) -> f64 {
    let (earlier, later) = (&before.execution, &after.execution);
    let (n, m) = (earlier.count as f64, later.count as f64);
    let (v, w) = (earlier.variance() / n, later.variance() / m);
    let difference = later.mean() - earlier.mean();
    if v + w <= 0.0 {
        // Without any spread, any difference is certain.
        return if difference > 0.0 { 1.0 } else { 0.0 };
    }
    let t = difference / (v + w).sqrt();
    let freedom = (v + w) * (v + w) / (v * v / (n - 1.0) + w * w / (m - 1.0));
    // Student's distribution by the regularised incomplete beta function.
    let tail = 0.5 * beta_reg(freedom / 2.0, 0.5, (freedom / (freedom + t * t)).clamp(0.0, 1.0));
    if t > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moments::Moments;

    const LIMITS: Limits = Limits { calls: 5, ratio: 1.5, confidence: 0.99 };

    fn sample(times: &[u64], rows: u64) -> Sample {
        let mut execution = Moments::default();
        times.iter().for_each(|time| execution.add(*time));
        Sample { execution, rows }
    }

    #[test]
    fn the_test_is_welchs() {
        // Values and result as published for Welch's test: t = -2.46, 24.99 degrees of freedom, p = 0.021 two-sided.
        let a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4];
        let b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4];
        let tenths = |values: &[f64]| values.iter().map(|value| (value * 10.0).round() as u64).collect::<Vec<u64>>();
        let two_sided = 2.0 * (1.0 - confidence(&sample(&tenths(&a), 0), &sample(&tenths(&b), 0)));
        assert!((two_sided - 0.021).abs() < 0.001, "{two_sided}");
    }

    #[test]
    #[allow(clippy::expect_used, reason = "a test")]
    fn slower_is_found_and_classed() {
        let before = sample(&[100, 110, 90, 105, 95, 100], 6);
        let after = sample(&[400, 390, 410, 405, 395, 400], 6);
        let found = assess(&before, &after, true, LIMITS).expect("a regression");
        assert_eq!((found.cause, found.severity()), (Cause::PlanChange, "critical"));
        assert!(found.confidence > 0.999 && (found.ratio - 4.0).abs() < 0.01);
        assert_eq!(assess(&before, &after, false, LIMITS).map(|found| found.cause), Some(Cause::SamePlanSlower));
        let more = Sample { rows: 24, ..after };
        assert_eq!(assess(&before, &more, false, LIMITS).map(|found| found.cause), Some(Cause::MoreRows));
    }

    #[test]
    fn chance_few_calls_and_faster_are_none() {
        let before = sample(&[100, 110, 90, 105, 95, 100], 6);
        let wild = sample(&[10, 1_000, 20, 15, 12, 11], 6);
        assert!(assess(&before, &wild, true, LIMITS).is_none());
        assert!(assess(&before, &sample(&[400, 400], 2), true, LIMITS).is_none());
        assert!(assess(&before, &sample(&[50, 51, 52, 50, 49, 48], 6), true, LIMITS).is_none());
        assert!(assess(&sample(&[], 0), &before, true, LIMITS).is_none());
    }
}

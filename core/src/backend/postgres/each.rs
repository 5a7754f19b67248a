//! A function that is called for each of several questions, in one statement: they share its round trip
//! and its commit, which is what a write costs.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio_postgres::Row;

use super::fault;
use super::schema::Schema;
use crate::error::{Error, Result};

impl Schema {
    /// A statement that calls a function with `arguments`: `i.c0` is one of the first column, and what
    /// follows the columns is the same for all. Its rows begin with the number of their call, from 1;
    /// `taken` names the rest.
    pub(super) fn call_each(
        &self,
        function: &str,
        columns: &[&str],
        arguments: &str,
        taken: &str,
    ) -> Arc<str> {
        let (mut arrays, mut names) = (String::new(), String::new());
        for (n, column) in columns.iter().enumerate() {
            let _ = write!(arrays, "{}${}::{column}[]", if n > 0 { ", " } else { "" }, n + 1);
            let _ = write!(names, "c{n}, ");
        }
        let function = self.function(function);
        format!(
            "select i.nth::integer, {taken} from unnest({arrays}) with ordinality i({names}nth), \
             lateral {function}({arguments}) r"
        )
        .into()
    }
}

/// In which order questions are answered: by what they lock, so that nodes do not wait for each other in
/// a circle; those of one lock in the order they were asked in.
pub(super) fn by_lock<Q>(questions: &[Q], lock: impl Fn(&Q) -> &str) -> Vec<usize> {
    let mut order: Vec<_> = (0..questions.len()).collect();
    order.sort_by(|a, b| lock(&questions[*a]).cmp(lock(&questions[*b])));
    order
}

/// Brings the rows back to the questions.
pub(super) fn settle<A>(
    operation: &'static str,
    order: &[usize],
    rows: Result<Vec<Row>>,
    read: impl Fn(usize, &Row) -> Option<A>,
    missing: impl Fn() -> Result<A>,
) -> Vec<Result<A>> {
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return order.iter().map(|_| Err(error.duplicate())).collect(),
    };
    let mut answers: Vec<_> = order.iter().map(|_| missing()).collect();
    for row in &rows {
        let nth = usize::try_from(row.try_get::<_, i32>(0).unwrap_or(0) - 1).ok();
        if let Some(at) = nth.and_then(|nth| order.get(nth)) {
            answers[*at] = read(*at, row).ok_or_else(|| fault::unreadable(operation));
        }
    }
    answers
}

/// The answer to each of so many questions that ask for none.
pub(super) fn done<T>(questions: usize, answer: &Result<T>) -> Vec<Result<()>> {
    let answer = |_| answer.as_ref().map(|_| ()).map_err(Error::duplicate);
    (0..questions).map(answer).collect()
}

/// One column of the questions, in the order they are answered in.
pub(super) fn column<'q, Q, T>(questions: &'q [Q], order: &[usize], of: impl Fn(&'q Q) -> T) -> Vec<T> {
    order.iter().map(|at| of(&questions[*at])).collect()
}

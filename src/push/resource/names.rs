//! The name that a column has in a record.

use std::borrow::Cow;

use super::{DDL, Encoding, Image, MetaField, Model, TRUNCATED};

impl Encoding {
    /// Returns the name of a column in an image: [`Self::row_name`] in model `row`, [`Self::flat_name`] if flattened,
    /// otherwise its own.
    #[must_use]
    pub fn column_name<'a>(&self, image: Image, column: &'a str) -> Cow<'a, str> {
        match self.model {
            Model::Row => self.row_name(column),
            Model::Op if self.flatten => self.flat_name(image, column),
            Model::Op => Cow::Borrowed(column),
        }
    }

    /// Returns the name of a column at the top of a record of model `row`: its own, with `_` appended until it
    /// differs from every other member.
    #[must_use]
    pub fn row_name<'a>(&self, column: &'a str) -> Cow<'a, str> {
        self.free(Cow::Borrowed(column))
    }

    /// Returns the name of a column at the top of a flattened record: image, delimiter, column, with `_` appended
    /// until it differs from every other member.
    #[must_use]
    pub fn flat_name(&self, image: Image, column: &str) -> Cow<'static, str> {
        let name = format!(
            "{}{}{column}",
            self.image_name(image),
            self.flatten_delimiter
        );
        self.free(Cow::Owned(name))
    }

    /// Returns the name of an image.
    #[must_use]
    pub fn image_name(&self, image: Image) -> &str {
        match image {
            Image::Before => &self.before_image_name,
            Image::After => &self.after_image_name,
        }
    }

    /// Returns the names of kind and object in metadata records: those of data records. Where data records lack them,
    /// metadata records have the default names, because their kind could not be told without them.
    #[must_use]
    pub fn metadata_names(&self) -> (&str, &str) {
        let name = |field: MetaField| {
            let name = self.meta_fields.name(field);
            name.unwrap_or(field.default_name())
        };
        (name(MetaField::OpType), name(MetaField::QualifiedTable))
    }

    /// Appends `_` to a name until it is not taken, so that two names never become one.
    ///
    /// With `pos` taken, column `pos` becomes `pos_`, and column `pos_` becomes `pos__`. The result depends on the
    /// name alone, so a column has the same name in every record.
    fn free<'a>(&self, name: Cow<'a, str>) -> Cow<'a, str> {
        let stem = stem_of(&name);
        let family = self.taken().filter(|taken| stem_of(taken) == stem);
        let mut taken: Vec<_> = family.map(|taken| taken.len() - stem.len()).collect();
        taken.sort_unstable();
        taken.dedup();
        // The name gets its rank among the names stem, stem_, stem__, … that are not taken.
        let mut underlines = name.len() - stem.len();
        for taken in taken {
            underlines += usize::from(taken <= underlines);
        }
        match stem.len() + underlines == name.len() {
            true => name,
            false => Cow::Owned(format!("{stem}{}", "_".repeat(underlines))),
        }
    }

    /// Returns the members that a data record has at the top beside columns.
    fn taken(&self) -> impl Iterator<Item = &str> {
        let meta = MetaField::ALL.into_iter();
        let meta = meta.filter_map(|field| self.meta_fields.name(field));
        let fixed = self.static_fields.iter().map(|(name, _)| &**name);
        meta.chain(fixed).chain([TRUNCATED, DDL])
    }
}

fn stem_of(name: &str) -> &str {
    name.trim_end_matches('_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::resource::Scalar;

    fn row(names: &[&str]) -> Encoding {
        let fixed = names.iter().map(|name| ((*name).to_owned(), Scalar::Null));
        Encoding {
            model: Model::Row,
            static_fields: fixed.collect(),
            ..Encoding::default()
        }
    }

    #[track_caller]
    fn check(names: &[&str], column: &str, expected: &str) {
        assert_eq!(row(names).column_name(Image::After, column), expected);
    }

    #[test]
    fn a_column_that_meets_another_member_gets_underlines() {
        check(&[], "orderid", "orderid");
        check(&[], "pos", "pos_");
        check(&[], "op_type", "op_type_");
        check(&[], "csn", "csn");
        check(&[], "truncated", "truncated_");
        check(&[], "ddl", "ddl_");
        check(&[], "after", "after");
        check(&["pos_", "pos__"], "pos", "pos___");
        check(&["a__"], "a", "a");
        check(&["a__"], "a_", "a_");
        check(&["a__"], "a__", "a___");
        check(&["_"], "", "");
        check(&["_"], "_", "__");
    }

    #[test]
    fn two_columns_never_become_one_member() {
        for names in [&[][..], &["pos_"], &["pos__", "a", "a_"], &["pos___"]] {
            let encoding = row(names);
            let columns =
                ["pos", "a"].map(|stem| (0..6).map(move |n| format!("{stem}{}", "_".repeat(n))));
            let columns: Vec<_> = columns.into_iter().flatten().collect();
            let mut all: Vec<_> = columns.iter().map(|c| encoding.row_name(c)).collect();
            assert!(
                all.iter()
                    .all(|name| !encoding.taken().any(|taken| taken == name))
            );
            let len = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), len, "{names:?}");
        }
    }

    #[test]
    fn a_flattened_column_is_named_by_image_and_delimiter() {
        let mut encoding = row(&["after.pos"]);
        assert_eq!(encoding.flat_name(Image::Before, "pos"), "before.pos");
        assert_eq!(encoding.flat_name(Image::After, "pos"), "after.pos_");
        assert_eq!(encoding.column_name(Image::After, "qty"), "qty");
        encoding.model = Model::Op;
        assert_eq!(encoding.column_name(Image::After, "pos"), "pos");
        encoding.flatten = true;
        encoding.flatten_delimiter = String::new();
        encoding.after_image_name = "new_".into();
        assert_eq!(encoding.column_name(Image::After, "pos"), "new_pos");
    }
}

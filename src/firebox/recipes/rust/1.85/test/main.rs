use std::collections::BTreeMap;

fn main() {
    let letters = BTreeMap::from([(1, "O"), (2, "K")]);
    println!("{}", letters.into_values().collect::<String>());
}

//! Words of which invented customers and reviews are made.
//!
//! Invariant: frozen; the sample and every invented history are made of them. Deliberately absent:
//! words of the real data.

/// Cities: name, state and the first postcode.
pub const CITIES: [(&str, &str, i64); 10] = [
    ("porto claro", "SP", 1_000),
    ("vila serena", "RJ", 20_000),
    ("campo do sol", "MG", 30_000),
    ("santa rita d'oeste", "SP", 13_000),
    ("lagoa funda", "BA", 40_000),
    ("ribeirao alto", "PR", 80_000),
    ("ilha das gaivotas", "SC", 88_000),
    ("pedra azulada", "RS", 90_000),
    ("monte novo", "GO", 74_000),
    ("barra mansa do norte", "PE", 50_000),
];
/// Titles of reviews.
pub const TITLES: [&str; 6] = [
    "Recomendo",
    "Muito bom ",
    "Péssimo",
    "nota 10",
    "Ok",
    "Não gostei",
];
/// Texts of reviews.
pub const COMMENTS: [&str; 8] = [
    "Chegou antes do prazo, tudo certo.",
    "Produto bonito e bem embalado",
    "Veio com a cor trocada, aguardo retorno da loja",
    "ainda não recebi",
    "Ótima compra!!",
    "Só recebi metade do pedido.",
    "Entrega rápida; voltarei a comprar",
    "A caixa chegou amassada, mas o produto está inteiro",
];

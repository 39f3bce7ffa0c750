//! The recipes of `recipes/*.toml`, embedded in the program: one for each shape.

/// The text of the recipe for a shape, by the name of the shape.
pub fn preset(name: &str) -> Option<&'static str> {
    let text = match name {
        "nano" => include_str!("../../recipes/nano.toml"),
        "small" => include_str!("../../recipes/small.toml"),
        "base" => include_str!("../../recipes/base.toml"),
        "large" => include_str!("../../recipes/large.toml"),
        "xl" => include_str!("../../recipes/xl.toml"),
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::recipe::Recipe;

    /// The published shapes: `d_model`, `d_kv`, `d_ff`, heads, encoder and decoder layers.
    const SHAPES: [(&str, [usize; 6]); 5] = [
        ("nano", [192, 32, 512, 6, 4, 2]),
        ("small", [512, 64, 1280, 8, 12, 6]),
        ("base", [768, 64, 3072, 12, 48, 24]),
        ("large", [1536, 64, 3840, 16, 48, 24]),
        ("xl", [2560, 64, 6720, 32, 48, 24]),
    ];

    #[test]
    fn every_preset_is_a_recipe_of_its_shape() {
        for (name, shape) in SHAPES {
            let recipe = Recipe::read(preset(name).unwrap(), &[]).unwrap();
            let model = &recipe.model;
            assert_eq!(model.preset.as_deref(), Some(name));
            let found = [
                model.d_model,
                model.d_kv,
                model.d_ff,
                model.num_heads,
                model.num_layers,
                model.num_decoder_layers,
            ];
            assert_eq!(found, shape.map(Some), "{name}");
        }
        assert_eq!(preset("huge"), None);
    }
}

"""Gradio's theme: its variables, set from the scale and colours at the top of style.css."""

import gradio as gr

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
"""System fonts only: nothing is downloaded."""

SPACES = gr.themes.sizes.Size(name="spaces", xxs="1px", xs="2px", sm="4px", md="4px", lg="8px", xl="8px", xxl="12px")
RADII = gr.themes.sizes.Size(name="radii", xxs="6px", xs="6px", sm="6px", md="6px", lg="6px", xl="6px", xxl="6px")
TEXTS = gr.themes.sizes.Size(name="texts", xxs="11px", xs="11px", sm="12px", md="13px", lg="14px", xl="16px", xxl="20px")

VALUES = {
    "body_background_fill": "var(--paper)", "body_text_color": "var(--ink)", "body_text_color_subdued": "var(--quiet)",
    "background_fill_primary": "var(--surface)", "background_fill_secondary": "var(--sunken)",
    "border_color_primary": "var(--line)", "border_color_accent": "var(--accent)", "border_color_accent_subdued": "var(--line)",
    "color_accent": "var(--accent)", "color_accent_soft": "var(--accent-soft)", "link_text_color": "var(--accent-text)",
    "block_background_fill": "transparent", "block_border_width": "0px", "block_border_color": "var(--line)", "block_shadow": "none",
    "block_label_background_fill": "transparent", "block_label_border_width": "0px",
    "block_label_text_color": "var(--quiet)", "block_title_text_color": "var(--quiet)", "block_info_text_color": "var(--quiet)",
    "panel_background_fill": "transparent", "panel_border_width": "0px", "table_border_color": "var(--line)",
    "checkbox_background_color": "var(--surface)", "checkbox_border_color": "var(--strong-line)",
    "checkbox_background_color_selected": "var(--accent)", "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "transparent", "checkbox_label_background_fill_hover": "var(--hover)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)", "checkbox_label_border_color": "var(--line)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "input_background_fill": "var(--surface)", "input_background_fill_focus": "var(--surface)",
    "input_border_color": "var(--line)", "input_border_color_focus": "var(--accent)", "input_border_color_hover": "var(--strong-line)",
    "input_placeholder_color": "var(--faint)", "input_shadow": "none", "input_shadow_focus": "0 0 0 2px var(--accent-soft)",
    "loader_color": "var(--accent)", "slider_color": "var(--accent)",
    "button_primary_background_fill": "var(--accent)", "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "transparent", "button_primary_text_color": "#fff", "button_primary_text_color_hover": "#fff",
    "button_secondary_background_fill": "var(--surface)", "button_secondary_background_fill_hover": "var(--hover)",
    "button_secondary_border_color": "var(--line)", "button_secondary_border_color_hover": "var(--strong-line)",
    "button_secondary_text_color": "var(--ink)", "button_secondary_text_color_hover": "var(--ink)",
    "button_cancel_background_fill": "var(--surface)", "button_cancel_background_fill_hover": "var(--hover)",
    "button_cancel_border_color": "var(--line)", "button_cancel_text_color": "var(--danger)",
}
"""Variables that may differ between light and dark; style.css defines them."""
SIZES = {
    "block_label_text_size": "12px", "block_title_text_size": "12px", "block_title_text_weight": "400", "block_info_text_size": "11px",
    "block_label_text_weight": "400", "block_padding": "0px", "block_label_margin": "0px", "block_label_padding": "4px 8px",
    "checkbox_label_padding": "4px 8px", "checkbox_label_gap": "4px", "checkbox_label_border_width": "1px",
    "form_gap_width": "8px", "layout_gap": "8px", "input_border_width": "1px", "input_padding": "6px 8px",
    "button_border_width": "1px", "button_large_text_weight": "600", "button_medium_text_weight": "500", "button_small_text_weight": "500",
    "button_large_padding": "8px 12px", "button_medium_padding": "4px 12px", "button_small_padding": "4px 8px",
    "button_transition": "background-color 0.12s, border-color 0.12s",
}


def theme() -> gr.themes.Base:
    """The page's theme."""
    theme = gr.themes.Base(primary_hue="indigo", neutral_hue="zinc", spacing_size=SPACES, radius_size=RADII, text_size=TEXTS, font=FONT,
                           font_mono=["ui-monospace", "monospace"])
    with_dark = {name + "_dark" for name in vars(theme) if hasattr(theme, name + "_dark")}
    return theme.set(**SIZES, **VALUES, **{name + "_dark": value for name, value in VALUES.items() if name + "_dark" in with_dark})

from boqsa.reports import main_masks


def test_the_decoders_masks_count_where_there_are_any() -> None:
    decoder, attention = {"iou": 0.5}, {"iou": 0.4}
    assert main_masks({"attention_masks": attention, "decoder_masks": decoder}) == decoder
    assert main_masks({"loss": 1.0, "attention_masks": attention}) == attention
    assert main_masks({"attention_masks": attention, "decoder_masks": None}) == attention
    assert main_masks({"loss": 1.0}) == {}

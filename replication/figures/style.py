"""The colours of every figure: one meaning each, told apart by people with colour-blindness."""

# Okabe-Ito: told apart by people with colour-blindness, and on white as on grey slices.
BLUE, SKY, GREEN, VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"

"""Numbers published by the authors of Ankh (github.com/agemagician/Ankh, README, June 2025): copied, not rerun."""

SECONDARY_STRUCTURE = [
    ("Ankh3-XL nlu", 84.40, 82.19, 72.53, 69.85, 0.64),
    ("Ankh3-XL s2s", 83.76, 82.30, 72.25, 69.51, 0.65),
    ("Ankh3-Large nlu", 78.03, 79.28, 65.29, 65.50, 0.65),
    ("Ankh3-Large s2s", 75.49, 77.96, 62.74, 65.88, 0.65),
    ("Ankh-Large", 83.59, 77.48, 71.69, 63.17, 0.62),
    ("ProtT5-XL", 83.34, 75.09, 70.47, 59.71, 0.61),
    ("ESM2-650M", 82.43, 76.97, 70.50, 62.10, 0.48),
    ("ESM2-3B", 83.14, 76.75, 71.69, 61.52, 0.46),
    ("ESM2-15B", 83.16, 76.56, 71.17, 61.81, 0.56),
]

CONTACTS = [
    ("Ankh-Large, head", 48.93, 73.49),
    ("Ankh-Large, attention", 31.44, 55.58),
    ("ESM2-3B, head", 30.24, 51.34),
    ("ESM2-3B, attention", 33.92, 56.63),
    ("ProtT5, head", 44.74, 68.95),
]

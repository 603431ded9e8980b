"""Why a prediction says what it says: pages and pictures that show it."""

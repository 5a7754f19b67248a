//! What only a real Redis server shows: outages, lost scripts, foreign keys, what is left behind.

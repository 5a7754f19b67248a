return main(KEYS, ARGV) or peer(id) and string.rep('0', 32)

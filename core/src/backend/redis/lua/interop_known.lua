return (main(KEYS, ARGV) == 1 or peer(id) or has_documents(id)) and 1 or 0

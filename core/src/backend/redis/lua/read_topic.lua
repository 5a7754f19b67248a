-- ARGV: prefix, name, position, age.
local e, n = topic(ARGV[2])
local start, gap, entries = after(P .. 'topiclog:{' .. ARGV[2] .. '}', e, n, tonumber(ARGV[4]), ARGV[3], 1)
return { place(e, start), gap and 1 or 0, entries }

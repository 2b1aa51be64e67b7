-- Pushes what is new to the end of a list of somebody else's, in order and as it is. ARGV[1] is the list's key, from 3
-- on: group, hash of group and id, body, of each. Returns how many were new.
local base = prefix .. ':list:' .. name .. ':ids:'
local fresh, ids = unknown(base)
if #fresh == 0 then
  return 0
end
local bodies = {}
for i, at in ipairs(fresh) do
  bodies[i] = ARGV[at + 2]
end
-- First, as a key that is no list refuses it: then no id may be known.
call('RPUSH', name, unpack(bodies))
remember(base, ids)
return #fresh

-- Stores what is new, in order. ARGV from 3 on: group, hash of group and id, body, of each.
-- Returns how many were new, or nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end

local base = prefix .. ':' .. queue.origin .. ':ids:'
local fresh, ids = unknown(base)
if #fresh == 0 then
  return 0
end
remember(base, ids)

local groups, wanted = {}, {}
for _, at in ipairs(fresh) do
  local group = ARGV[at]
  if not wanted[group] then
    wanted[group] = true
    groups[#groups + 1] = group
  end
end
local states, lanes = call('HMGET', queue.lanes, unpack(groups)), {}
for i, group in ipairs(groups) do
  if states[i] then
    local first, last, held = string.match(states[i], '^(%d+) (%d+) (%d+)$')
    lanes[group] = {first = first, last = last, held = held}
  end
end

local number = call('INCRBY', queue.last, #fresh) - #fresh
local messages, chain, ready = {}, {}, {}
for _, at in ipairs(fresh) do
  number = number + 1
  local group, lane = ARGV[at], lanes[ARGV[at]]
  messages[#messages + 1] = number
  messages[#messages + 1] = now .. ' ' .. group .. ' ' .. ARGV[at + 2]
  if lane then
    chain[#chain + 1] = lane.last
    chain[#chain + 1] = number
    lane.last = number
  else
    lanes[group] = {first = number, last = number, held = 0}
    ready[#ready + 1] = number
    ready[#ready + 1] = group
  end
end
local kept = {}
for group, lane in pairs(lanes) do
  kept[#kept + 1] = group
  kept[#kept + 1] = lane.first .. ' ' .. lane.last .. ' ' .. lane.held
end
call('HSET', queue.messages, unpack(messages))
call('HSET', queue.lanes, unpack(kept))
if #chain > 0 then
  call('HSET', queue.next, unpack(chain))
end
if #ready > 0 then
  call('ZADD', queue.ready, unpack(ready))
  ring(queue)
end
return #fresh

-- What all actions share: it stands before each of them.
--
-- KEYS[1] is the prefix of every key. ARGV[1] is the queue's name, ARGV[2] the time in milliseconds, or '' for the
-- server's own. What a queue holds is in a fixed number of keys, however many groups and messages there are, so
-- that emptying one is a few UNLINKs:
--
--   PREFIX:queues           hash: name -> 'id origin max_receives dead-letter queue'; a purge gives a new id, the
--                           origin is the first one, whose deduplication ids it still knows
--   PREFIX:tags             hash: name -> JSON
--   PREFIX:bell:NAME        list: at most one token, for one of the receives that wait
--   PREFIX:ID:last          the last number given to a message
--   PREFIX:ID:messages      hash: number -> 'milliseconds group body'
--   PREFIX:ID:lanes         hash: lane -> 'first last held': its first and last number, how many are in flight
--   PREFIX:ID:next          hash: number -> the next number of its lane
--   PREFIX:ID:ready         sorted set: lanes of which nothing is in flight, by their first number
--   PREFIX:ID:flight        sorted set: numbers in flight, by the end of their lease
--   PREFIX:ID:taken         hash: number -> 'receives lane', once received
--   PREFIX:ID:try:ATTEMPT   what a receive took, in case that its answer was lost
--   PREFIX:ORIGIN:ids:N     hash: group and id -> milliseconds since the N-th span of five minutes began
--   PREFIX:list:KEY:ids:N   the same, of what was pushed to the list KEY, which itself is none of ours

-- A full server refuses a command that may need memory, unless the script has begun to write: then it lets it end.
-- So what frees memory in the end (all but sending) begins with a command that needs none.

local prefix, name = KEYS[1], ARGV[1]
local call = redis.call

local now = tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Milliseconds for which ids are known.
local SPAN = 300000

-- A receive waits for the bell so long without a look at the leases: one that ends sooner is worth a ring.
local SLICE = 5000

local function queue_of(name, row)
  local id, origin, most, dead = string.match(row, '^(%w+) (%w+) (%d+) (.*)$')
  local base = prefix .. ':' .. id .. ':'
  return {
    name = name, id = id, origin = origin, most = tonumber(most), dead = dead, base = base,
    bell = prefix .. ':bell:' .. name, last = base .. 'last', messages = base .. 'messages',
    lanes = base .. 'lanes', next = base .. 'next', ready = base .. 'ready', flight = base .. 'flight',
    taken = base .. 'taken',
  }
end

local function find(name)
  local row = call('HGET', prefix .. ':queues', name)
  return row and queue_of(name, row)
end

-- Returns where in ARGV the entries are whose ids are new, and what to remember of these. An id is known from its own
-- span of five minutes and from the one before; a span that nobody asks for any more expires as a whole. ARGV from 3
-- on: group, hash of group and id, body, of each.
local function unknown(base)
  local span = math.floor(now / SPAN)
  local keys = {}
  for i = 4, #ARGV, 3 do
    keys[#keys + 1] = ARGV[i]
  end
  local recent = call('HMGET', base .. span, unpack(keys))
  local older = call('HMGET', base .. (span - 1), unpack(keys))
  local offset = now - span * SPAN
  local fresh, ids, twice = {}, {}, {}
  for i, key in ipairs(keys) do
    if not (twice[key] or recent[i] or (older[i] and tonumber(older[i]) > offset)) then
      twice[key] = true
      fresh[#fresh + 1] = 3 * i
      ids[#ids + 1] = key
      ids[#ids + 1] = offset
    end
  end
  return fresh, ids
end

local function remember(base, ids)
  local span = math.floor(now / SPAN)
  call('HSET', base .. span, unpack(ids))
  call('PEXPIRE', base .. span, (span + 2) * SPAN - now)
end

-- Wakes one receive: it wakes the next one if it leaves anything. Servers hand the token over after the script.
local function ring(queue)
  if call('LLEN', queue.bell) == 0 then
    call('RPUSH', queue.bell, '1')
  end
end

-- Takes numbers out of a lane's chain and returns its new ends. What is in flight is always near the lane's
-- beginning: it was taken from there by one receive.
local function unlink(queue, first, last, gone, count)
  local before, at = nil, first
  while at and count > 0 do
    local after = at ~= last and call('HGET', queue.next, at)
    if gone[at] then
      count = count - 1
      if after then
        call('HDEL', queue.next, at)
      end
      if not before then
        first = after
      elseif after then
        call('HSET', queue.next, before, after)
      else
        call('HDEL', queue.next, before)
        last = before
      end
    else
      before = at
    end
    at = after
  end
  return first, last
end

-- Takes note of what is not in flight any more. ``lanes`` maps a lane to {landed = how many, gone = which ones were
-- deleted, count = how many of those}. A lane of which nothing is in flight becomes ready.
local function settle(queue, lanes)
  local names = {}
  for lane in pairs(lanes) do
    names[#names + 1] = lane
  end
  if #names == 0 then
    return
  end
  local states, kept, empty, ready = call('HMGET', queue.lanes, unpack(names)), {}, {}, {}
  for i, lane in ipairs(names) do
    if states[i] then
      local change = lanes[lane]
      local first, last, held = string.match(states[i], '^(%d+) (%d+) (%d+)$')
      held = held - change.landed
      if change.count > 0 then
        first, last = unlink(queue, first, last, change.gone, change.count)
      end
      if not first then
        empty[#empty + 1] = lane
      else
        kept[#kept + 1] = lane
        kept[#kept + 1] = first .. ' ' .. last .. ' ' .. held
        if held == 0 then
          ready[#ready + 1] = first
          ready[#ready + 1] = lane
        end
      end
    end
  end
  if #empty > 0 then
    call('HDEL', queue.lanes, unpack(empty))
  end
  if #kept > 0 then
    call('HSET', queue.lanes, unpack(kept))
  end
  if #ready > 0 then
    call('ZADD', queue.ready, unpack(ready))
    ring(queue)
  end
end

local function change_of(lanes, lane)
  local change = lanes[lane]
  if not change then
    change = {landed = 0, gone = {}, count = 0}
    lanes[lane] = change
  end
  return change
end

-- Returns, by its place among the receipts, the number and the lane of each message that a receipt holds now.
local function held_by(queue, receipts)
  local numbers, counts, places, held = {}, {}, {}, {}
  for place, receipt in ipairs(receipts) do
    local id, number, receives = string.match(receipt, '^(%x+)-(%d+)-(%d+)$')
    if id == queue.id then
      numbers[#numbers + 1] = number
      counts[#counts + 1] = receives
      places[#places + 1] = place
    end
  end
  if #numbers == 0 then
    return held
  end
  local ends = call('ZMSCORE', queue.flight, unpack(numbers))
  local taken = call('HMGET', queue.taken, unpack(numbers))
  for i, number in ipairs(numbers) do
    if ends[i] and tonumber(ends[i]) > now then
      local receives, lane = string.match(taken[i], '^(%d+) (.*)$')
      if receives == counts[i] then
        held[places[i]] = {number = number, lane = lane}
      end
    end
  end
  return held
end

-- Answers entry by entry: '1' is done, '0' is a lost lease.
local function answers(held, count)
  local texts = {}
  for i = 1, count do
    texts[i] = held[i] and '1' or '0'
  end
  return table.concat(texts)
end

local function drop(queue)
  call('UNLINK', queue.last, queue.messages, queue.lanes, queue.next, queue.ready, queue.flight, queue.taken)
end

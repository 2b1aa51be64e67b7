-- Takes messages: the group that waited longest as far as it goes, then the next. ARGV: 3 how many, 4 the lease in
-- milliseconds, 5 the attempt, or ''.
-- Returns {'id number receives number receives ...', message, message, ...}; or, if there is nothing, the
-- milliseconds until a lease ends, 0 for come again at once, -1 for none; or nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end
local count, lease = tonumber(ARGV[3]), tonumber(ARGV[4])
local trial = ARGV[5] ~= '' and queue.base .. 'try:' .. ARGV[5]

-- A script may keep the server for a moment only: the rest is for the next call.
local MOST_EXPIRED, MOST_ROUNDS = 1000, 30

local function expire()
  local numbers = call('ZRANGEBYSCORE', queue.flight, '-inf', now, 'LIMIT', 0, MOST_EXPIRED)
  if #numbers == 0 then
    return
  end
  call('ZREM', queue.flight, unpack(numbers))
  local lanes = {}
  for _, taken in ipairs(call('HMGET', queue.taken, unpack(numbers))) do
    local change = change_of(lanes, string.match(taken, '^%d+ (.*)$'))
    change.landed = change.landed + 1
  end
  settle(queue, lanes)
end

-- Finds what is next. The numbers are texts, as the server has them.
local function due()
  local lanes = call('ZRANGE', queue.ready, 0, count - 1, 'WITHSCORES')
  if #lanes == 0 then
    return {}
  end
  local firsts = {}
  for i = 2, #lanes, 2 do
    firsts[#firsts + 1] = lanes[i]
  end
  local following, found, numbers = call('HMGET', queue.next, unpack(firsts)), {}, {}
  for i, number in ipairs(firsts) do
    local after = following[i]
    while number and #found < count do
      found[#found + 1] = {number = number, lane = lanes[2 * i - 1]}
      numbers[#numbers + 1] = number
      number = after
      after = number and call('HGET', queue.next, number)
    end
  end
  for i, taken in ipairs(call('HMGET', queue.taken, unpack(numbers))) do
    found[i].receives = taken and tonumber(string.match(taken, '^%d+')) or 0
  end
  return found
end

-- Moves messages that were received too often to the dead-letter queue. Each keeps its group's name but gets a lane
-- of its own (no group has a space in its name): dead letters do not wait for one another, so that all can be listed.
local function bury(dead, doomed)
  local lanes = {}
  for _, message in ipairs(doomed) do
    call('ZREM', queue.ready, message.lane)
    local number = call('INCR', dead.last)
    local lane = ' ' .. number
    call('HSET', dead.messages, number, call('HGET', queue.messages, message.number))
    call('HSET', dead.lanes, lane, number .. ' ' .. number .. ' 0')
    call('ZADD', dead.ready, number, lane)
    call('HDEL', queue.messages, message.number)
    call('HDEL', queue.taken, message.number)
    local change = change_of(lanes, message.lane)
    change.gone[message.number] = true
    change.count = change.count + 1
  end
  settle(queue, lanes)
  ring(dead)
end

local function doomed_of(found)
  local doomed = {}
  for _, message in ipairs(found) do
    if message.receives >= queue.most then
      doomed[#doomed + 1] = message
    end
  end
  return doomed
end

local function take(found)
  local numbers, lanes, taken, flight, held = {}, {}, {}, {}, {}
  local ending = now + lease
  for i, message in ipairs(found) do
    local lane = message.lane
    message.receives = message.receives + 1
    numbers[i] = message.number
    if not held[lane] then
      lanes[#lanes + 1] = lane
    end
    held[lane] = (held[lane] or 0) + 1
    taken[2 * i - 1], taken[2 * i] = message.number, message.receives .. ' ' .. lane
    flight[2 * i - 1], flight[2 * i] = ending, message.number
  end
  local states, kept = call('HMGET', queue.lanes, unpack(lanes)), {}
  for i, lane in ipairs(lanes) do
    kept[2 * i - 1] = lane
    kept[2 * i] = string.match(states[i], '^%d+ %d+ ') .. held[lane]
  end
  call('ZREM', queue.ready, unpack(lanes))
  call('HSET', queue.lanes, unpack(kept))
  call('HSET', queue.taken, unpack(taken))
  call('ZADD', queue.flight, unpack(flight))
  return numbers
end

-- The same attempt again gets the same answer, as long as nobody changed any of its messages: the text is the end of
-- their lease, the sum of their receive counts, and their numbers. Their leases begin anew.
local function again()
  local text = trial and call('GET', trial)
  if not text then
    return nil
  end
  local ending, total, list = string.match(text, '^(%d+) (%d+) (.*)$')
  local found, numbers, flight = {}, {}, {}
  for number in string.gmatch(list, '%d+') do
    numbers[#numbers + 1] = number
  end
  local ends = call('ZMSCORE', queue.flight, unpack(numbers))
  for i, taken in ipairs(call('HMGET', queue.taken, unpack(numbers))) do
    if not taken or not ends[i] or tonumber(ends[i]) ~= tonumber(ending) then
      return nil
    end
    local receives = tonumber(string.match(taken, '^%d+'))
    found[i] = {number = numbers[i], receives = receives}
    flight[2 * i - 1], flight[2 * i] = now + lease, numbers[i]
    total = total - receives
  end
  if total ~= 0 then
    return nil
  end
  call('ZREM', queue.flight, unpack(numbers))
  call('ZADD', queue.flight, unpack(flight))
  return found, numbers
end

local function remember(found, numbers)
  local total = 0
  for _, message in ipairs(found) do
    total = total + message.receives
  end
  local text = (now + lease) .. ' ' .. total .. ' ' .. table.concat(numbers, ' ')
  call('SET', trial, text, 'PX', math.max(1, math.min(lease, SPAN)))
end

expire()
local found, numbers = again()
if not found then
  local dead = nil
  for round = 1, MOST_ROUNDS do
    found = due()
    local doomed = doomed_of(found)
    if #doomed > 0 and not dead then
      dead = queue.dead ~= '' and find(queue.dead)
    end
    if #doomed == 0 or not dead then
      break
    end
    bury(dead, doomed)
    if round == MOST_ROUNDS then
      return 0
    end
  end
  if #found == 0 then
    local nearest = call('ZRANGE', queue.flight, 0, 0, 'WITHSCORES')[2]
    return nearest and math.max(0, tonumber(nearest) - now) or -1
  end
  numbers = take(found)
end
if trial then
  remember(found, numbers)
end
-- Whoever waits is to see to the rest, and to hear of a lease that ends before it looks again.
if lease < SLICE or call('ZCARD', queue.ready) > 0 then
  ring(queue)
end
local head = {queue.id}
for _, message in ipairs(found) do
  head[#head + 1] = message.number
  head[#head + 1] = message.receives
end
local answer = call('HMGET', queue.messages, unpack(numbers))
table.insert(answer, 1, table.concat(head, ' '))
return answer

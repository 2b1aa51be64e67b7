-- Sets leases. ARGV from 3 on: receipt, milliseconds from now, of each; 0 gives the message back.
-- Returns the answers, or nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end
local receipts = {}
for i = 3, #ARGV, 2 do
  receipts[#receipts + 1] = ARGV[i]
end
local held, leases, lanes_of = held_by(queue, receipts), {}, {}
for i = 1, #receipts do
  if held[i] then
    leases[held[i].number] = tonumber(ARGV[2 * i + 2])
    lanes_of[held[i].number] = held[i].lane
  end
end
local flight, lanes, numbers, shortest = {}, {}, {}, SLICE
for number, lease in pairs(leases) do
  numbers[#numbers + 1] = number
  if lease > 0 then
    flight[#flight + 1] = now + lease
    flight[#flight + 1] = number
    shortest = math.min(shortest, lease)
  else
    local change = change_of(lanes, lanes_of[number])
    change.landed = change.landed + 1
  end
end
if #numbers > 0 then
  call('ZREM', queue.flight, unpack(numbers))
end
if #flight > 0 then
  call('ZADD', queue.flight, unpack(flight))
  if shortest < SLICE then
    ring(queue)
  end
end
settle(queue, lanes)
return answers(held, #receipts)

-- Deletes what the receipts hold. ARGV from 3 on: receipts. Returns the answers, or nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end
local held, lanes, numbers = held_by(queue, {unpack(ARGV, 3)}), {}, {}
for _, message in pairs(held) do
  local change = change_of(lanes, message.lane)
  if not change.gone[message.number] then
    change.gone[message.number] = true
    change.count = change.count + 1
    change.landed = change.landed + 1
    numbers[#numbers + 1] = message.number
  end
end
if #numbers > 0 then
  call('ZREM', queue.flight, unpack(numbers))
  call('HDEL', queue.messages, unpack(numbers))
  call('HDEL', queue.taken, unpack(numbers))
  settle(queue, lanes)
end
return answers(held, #ARGV - 2)
